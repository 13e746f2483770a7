"""What waits to be written to one socket: lines of many calls, joined into one write per loop turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

MAX_WAITING = 64 * 1024  # bytes; calls wait while more than this waits for the socket


class Outbox:
    """Collects lines and writes them together.

    Args:
        write: Writes lines, each as a message of its own; returns once the socket takes more.
    """

    def __init__(self, write: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        self._write = write
        self._lines: list[bytes] = []
        self._size = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, lines: Sequence[bytes]) -> None:
        """Add lines; waits while too much is waiting already."""
        await self._room.wait()
        self._lines += lines
        self._size += sum(map(len, lines))
        self._filled.set()
        if self._size > MAX_WAITING:
            self._room.clear()

    async def run(self) -> None:
        """Write what is put, until cancelled or the socket is gone."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            lines, self._lines, self._size = self._lines, [], 0
            await self._write(lines)
            self._room.set()
