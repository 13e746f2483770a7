"""penstock, with a command that does nothing and tells over UDP when it feels that its caller has left."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator

import uvloop
from hosting import pin_to_core, say_ready

from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.server.host import Host
from penstock.server.settings import ServerSettings

rt = Runtime()
teller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@rt.streaming_command("silent", concurrency=1024)
async def silent(tell: int) -> AsyncIterator[int]:
    """Yield once, then wait; ``tell`` is the port that is told the time of the end."""
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        teller.sendto(struct.pack("d", time.monotonic()), ("127.0.0.1", tell))


@rt.streaming_command("flood", concurrency=1024)
async def flood(tell: int) -> AsyncIterator[str]:
    """Yield for ever."""
    try:
        while True:
            yield "token " * 20
    finally:
        teller.sendto(struct.pack("d", time.monotonic()), ("127.0.0.1", tell))


if __name__ == "__main__":
    pin_to_core()
    host = Host(App(rt), ServerSettings(port=0), lambda url: say_ready(int(url.rpartition(":")[2])))
    uvloop.run(host.serve())
