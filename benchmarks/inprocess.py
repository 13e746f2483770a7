"""Streams without a network: the same commands, read in the process that runs them.

- ``bare``: encodes and joins the frames of each stream, as the bare ASGI app does.
- ``frames``: penstock, its frames joined to the bytes that an HTTP response would write.
- ``client``: penstock, read by its own client, item by item.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from load import EXPECTED_ITEM, ITEM_MARK, Tally, WrongAnswer, arguments, now, percentiles, tell

from penstock.client.client import AsyncClient
from penstock.protocol.codec import ndjson
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start
from penstock.runtime.app import App

sys.path.insert(0, str(Path(__file__).parent / "apps"))

import bare
import penstock_app

Stream = Callable[[], Awaitable[int]]  # runs one stream; tells how many items it had


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run streams side by side, each begun again as soon as it has ended."""
    async with App(penstock_app.rt) as app:
        streams: dict[str, Stream] = {
            "bare": _bare,
            "frames": lambda: _frames(app),
            "client": lambda: _client(AsyncClient(app)),
        }
        return await _count(streams[args.command], args)


async def _bare() -> int:
    await asyncio.sleep(0)
    return bare.stream("predict", as_events=False).count(ITEM_MARK)


async def _frames(app: App) -> int:
    live = await app.open(Start(command="predict", input=b'{"prompt":"hello"}', is_stream=True), LOCAL)
    count = 0
    async with live.reader() as reader:
        async for batch in reader:
            count += ndjson(batch.lines).count(ITEM_MARK)
    return count


async def _client(client: AsyncClient) -> int:
    async with client.stream("predict", prompt="hello") as stream:
        items = [item async for item in stream]
    return sum(item == EXPECTED_ITEM for item in items)


async def _count(stream: Stream, args: argparse.Namespace) -> dict[str, Any]:
    tally, over = Tally(), asyncio.Event()

    async def repeat() -> None:
        while not over.is_set():
            began = now()
            if await stream() != args.items:
                raise WrongAnswer(f"a stream has not {args.items} items")
            tally.requests += 1
            tally.total_s.append(now() - began)

    async def watch() -> dict[str, Any]:
        await asyncio.sleep(args.warm_up)
        tally.reset()
        began, cpu = now(), time.process_time()
        await asyncio.sleep(args.seconds)
        took, used = now() - began, time.process_time() - cpu
        over.set()
        return {
            "command": args.command,
            "items": args.items,
            "seconds": round(took, 4),
            "requests": tally.requests,
            "requests_per_s": round(tally.requests / took, 1),
            "tokens_per_s": round(tally.requests * args.items / took),
            "total_ms": percentiles(tally.total_s),
            "server_cpu": round(used / took, 3),
        }

    result, *_ = await asyncio.gather(watch(), *(repeat() for _ in range(args.connections)))
    return result


if __name__ == "__main__":
    tell(measure, arguments(__doc__).parse_args())
