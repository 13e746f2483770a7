"""penstock, with commands that do nothing and tell over UDP when they feel their cancel, or whose work is
done by an engine behind HTTP."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import cache

import anyio
import uvloop
from hosting import pin_to_core, say_ready

from penstock import engines
from penstock.engines.base import Engine
from penstock.runtime.app import App
from penstock.runtime.context import current_call
from penstock.runtime.runtime import Runtime
from penstock.server.host import Host
from penstock.server.settings import ServerSettings

LONGEST_S = 30.0

rt = Runtime()
teller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def say(port: int, moment: float) -> None:
    """Tell the load a time of the machine's monotonic clock."""
    teller.sendto(struct.pack("d", moment), ("127.0.0.1", port))


def begin(port: int) -> None:
    """Tell the load when this call's time will be over."""
    left = current_call().remaining()
    say(port, 0.0 if left is None else time.monotonic() + left)


@rt.streaming_command("async", concurrency=1024)
async def in_a_coroutine(tell: int, upstream: int = 0) -> AsyncIterator[int]:
    """Yield once, then wait; ``tell`` is the port that is told the time of the end."""
    begin(tell)
    try:
        yield 1
        await anyio.sleep_forever()
    finally:
        say(tell, time.monotonic())


@rt.streaming_command("sync", concurrency=1024)
def in_a_thread(tell: int, upstream: int = 0) -> Iterator[int]:
    """Yield once, then block until the abort callback comes."""
    begin(tell)
    aborted = threading.Event()
    current_call().on_abort(lambda _: aborted.set())
    yield 1
    aborted.wait(LONGEST_S)
    say(tell, time.monotonic())


@cache
def engine(spec: str) -> Engine:
    """Return the engine on an upstream, which is the same for all calls."""
    return engines.open(spec)


async def passed_on(name: str, tell: int, upstream: int) -> AsyncIterator[str]:
    """Pass on what an engine says; whoever is below it tells the time."""
    begin(tell)
    query = "?model=played" if name == "openai" else ""
    async for piece in engine(f"{name}://127.0.0.1:{upstream}{query}").stream_text("go"):
        yield piece


@rt.streaming_command("sglang", concurrency=64)
async def on_sglang(tell: int, upstream: int) -> AsyncIterator[str]:
    """Pass on what an SGLang server says."""
    async for piece in passed_on("sglang", tell, upstream):
        yield piece


@rt.streaming_command("openai", concurrency=64)
async def on_openai(tell: int, upstream: int) -> AsyncIterator[str]:
    """Pass on what a server says that speaks OpenAI's protocol."""
    async for piece in passed_on("openai", tell, upstream):
        yield piece


if __name__ == "__main__":
    pin_to_core()
    host = Host(App(rt), ServerSettings(port=0), lambda url: say_ready(int(url.rpartition(":")[2])))
    uvloop.run(host.serve())
