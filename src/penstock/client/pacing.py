"""What a client waits for beside its transport; for threads ``penstock.client.blocking.pacing``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import anyio

from penstock.calls.tasks import TaskOwner
from penstock.client.transport import Reply
from penstock.errors import CallError, StreamTruncated
from penstock.protocol.messages import Frame

END_S = 0.5  # how long the end of a response may trail the terminal frame before it is given up


async def sleep(seconds: float) -> None:
    """Wait."""
    await anyio.sleep(seconds)


async def read_end(reply: Reply) -> list[Frame]:
    """Read to the end of a response, so that its connection can be used again; return what it still held.
    The call has ended: whatever else is wrong with the connection now is of no concern."""
    frames: list[Frame] = []
    with anyio.move_on_after(END_S), suppress(StopAsyncIteration, StreamTruncated, CallError):
        while True:
            frames += await reply.__anext__()
    return frames


def closer() -> Callable[[Reply], None]:
    """Return what closes a reply that nobody has any more: from any thread, and without waiting."""
    loop, tasks = asyncio.get_running_loop(), TaskOwner()

    def close(reply: Reply) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it every connection
            loop.call_soon_threadsafe(lambda: tasks.start(reply.aclose()))

    return close
