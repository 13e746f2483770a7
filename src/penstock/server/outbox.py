"""What waits to be written to one socket: lines of many calls, joined into one write per loop turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from penstock.calls.tasks import TaskOwner

MAX_WAITING = 64 * 1024  # bytes; whoever has more to say waits for the socket


class SocketGone(Exception):
    """The peer has left: nothing reaches it any more."""


class Outbox:
    """Collects lines and writes them together, in the order they came; whoever waits gets its turn in that
    order, too.

    Args:
        write: Writes lines, each as a message of its own; returns once the socket takes more, and raises
            ``OSError`` once the peer has gone.
        tasks: Owns the task that writes; there is one only while there is something to write.
    """

    def __init__(self, write: Callable[[Sequence[bytes]], Awaitable[None]], tasks: TaskOwner) -> None:
        self._write = write
        self._tasks = tasks
        self._lines: list[bytes] = []
        self._size = 0  # of what was put and is not written yet
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._moved: asyncio.Future[None] | None = None
        self._gone = False

    async def put(self, lines: Sequence[bytes]) -> None:
        """Add lines; waits while too much is waiting already.

        Raises:
            SocketGone: The peer has left.
        """
        async with self._turn:
            while self._size > MAX_WAITING and not self._gone:
                self._moved = asyncio.get_running_loop().create_future()
                await self._moved
            if self._gone:
                raise SocketGone
            self._lines += lines
            self._size += sum(map(len, lines))
            if self._writing is None:
                self._writing = self._tasks.start(self._run(), name="writing")

    async def _run(self) -> None:
        try:
            while self._lines:
                lines, self._lines = self._lines, []
                size = self._size
                await self._write(lines)
                self._size -= size
                self._wake()
        except OSError:
            self._gone = True
            self._lines.clear()
        finally:
            self._writing = None
            self._wake()

    def _wake(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)
