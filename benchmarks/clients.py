"""How fast clients read items, beside bare `httpx` and `websockets` that look at none of the same bytes.

One server, in a process of its own; in each round every reader reads one stream, in turn, and the ratios are
taken within a round.  Aim: no client is below 0.5.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
from processes import end
from websockets.asyncio.client import connect

from penstock import AsyncClient, Client

PROJECT = """
from penstock import Runtime

rt = Runtime()

@rt.streaming_command("count")
async def count(n: int):
    for number in range(n):
        yield {"text": "token ", "chunk": "token ", "finished": False}
"""
AIM = 0.5
Reader = Callable[[], Awaitable[None]]


@contextmanager
def serving() -> Iterator[str]:
    """Serve the project; give its URL."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "run.py"
        project.write_text(PROJECT)
        command = [sys.executable, "-m", "penstock.cli", "run", str(project), "--port", "0", "--ws-port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"ready on (http:\S+)", line) for line in process.stdout)))
            yield found[1]
        finally:
            end(process)


def readers(url: str, items: int) -> dict[str, Reader]:
    """Return what reads a stream of so many items, by its name; of each kind the bare one first."""
    ws_url = url.replace("http", "ws")
    asked = {"command": "count", "input": {"n": items}, "is_stream": True}

    async def bare_http() -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            size = 0
            async with http.stream("POST", f"{url}/v2/execute", json=asked, timeout=60) as response:
                async for data in response.aiter_raw():
                    size += len(data)
        assert size > 100 * items

    async def bare_ws() -> None:
        async with connect(f"{ws_url}/v2/ws", compression=None, proxy=None) as socket:
            await socket.send(json.dumps({"type": "command", "task_id": "t", **asked}))
            for _ in range(items + 2):
                await socket.recv(decode=False)

    async def by_async(target: str) -> None:
        async with AsyncClient(target) as client, client.stream("count", n=items) as stream:
            count = 0
            async for _ in stream:
                count += 1
        assert count == items

    def by_thread(target: str) -> None:
        with Client(target) as client, client.stream("count", n=items) as stream:
            assert sum(1 for _ in stream) == items

    return {
        "httpx": bare_http,
        "AsyncClient, http": lambda: by_async(url),
        "Client, http": lambda: asyncio.to_thread(by_thread, url),
        "websockets": bare_ws,
        "AsyncClient, ws": lambda: by_async(ws_url),
        "Client, ws": lambda: asyncio.to_thread(by_thread, ws_url),
    }


async def measure(url: str, items: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds each reader took in each round, and its processor time, after one that does not
    count."""
    took: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds + 1):
        for name, read in readers(url, items).items():
            began = time.perf_counter(), time.process_time()
            await read()
            spent = time.perf_counter() - began[0], time.process_time() - began[1]
            took.setdefault(name, []).append(spent)
    return {name: seconds[1:] for name, seconds in took.items()}


def main() -> int:
    """Print a table; return 1 where a client is below the aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with serving() as url:
        took = asyncio.run(measure(url, args.items, args.rounds))
    missed = False
    for name, spent in took.items():
        bare = took["websockets" if name.endswith((" ws", "websockets")) else "httpx"]
        ratio = median(least / own for (least, _), (own, _) in zip(bare, spent, strict=True))
        missed |= ratio < AIM
        rate = args.items / median(wall for wall, _ in spent)
        cpu_us = 1e6 * median(cpu for _, cpu in spent) / args.items
        print(
            f"{name:20} {rate:>10,.0f} items/s   {ratio:.2f} of the bare   {cpu_us:5.2f} µs of processor each"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
