"""A gateway that Clarifai's runners dial, and callers who read all that these say, each checked."""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from hosting import pin_to_core, say_ready

from penstock.calls.tasks import TaskOwner
from penstock.compose import KeyGuard
from penstock.gateway.clarifai.binding import NoBindings
from penstock.gateway.clarifai.server import ClarifaiServer
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.hub import Hub
from penstock.observability.recorder import Recorder
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start
from penstock.server.door import Door

CALLERS = 64
ITEMS = 256
START = Start(command="bench.generate", input=b'{"prompt": "hello"}', is_stream=True)


async def call(hub: Hub) -> None:
    """Call again and again, and see that everything comes."""
    while True:
        live = await hub.open(START, LOCAL)
        count, last = 0, b""
        async with live.reader() as reader:
            async for batch in reader:
                count += len(batch.lines)
                last = batch.lines[-1] if batch.lines else last
        if b'"unavailable"' in last and count == 2:  # the load is over, and its threads leave
            continue
        if b'"completed"' not in last or count != ITEMS + 2:
            sys.stderr.write(f"a call had {count} frames and ended with {last!r}\n")
            os._exit(1)


async def serve() -> None:
    """Serve until it is told to stop."""
    ports: list[int] = []
    tasks = TaskOwner()
    async with Hub(observer=Recorder()) as hub:
        server = ClarifaiServer(
            hub,
            KeyGuard(Door(None)),
            "127.0.0.1",
            LinkSettings(port=0),
            NoBindings(),
            listening=lambda url: ports.append(int(url.rpartition(":")[2])),
        )
        await server.start()
        say_ready(ports[0])
        while not any(runner.takes for runner in hub.runners):  # noqa: ASYNC110 - a benchmark may look
            await asyncio.sleep(0.01)
        for _ in range(CALLERS):
            tasks.start(call(hub))
        await asyncio.Event().wait()


if __name__ == "__main__":
    pin_to_core()
    uvloop.run(serve())
