"""From a thread that computes to the event loop that reads: bounded, one wake-up for all that is ready."""

from __future__ import annotations

import asyncio
import threading
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Handoff(Generic[T]):
    """Items of one thread, taken in batches by one reader on an event loop.

    Args:
        loop: Where the reader runs.
        limit: How many items may wait; beyond that the thread does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = 256) -> None:
        self._loop = loop
        self._limit: float = limit
        self._items: list[T] = []
        self._room = threading.Condition()
        self._woken = False
        self._closed = False
        self._finished = False
        self._ready = asyncio.Event()
        self._over = asyncio.Event()

    def put(self, item: T) -> bool:
        """Hand one item over, waiting while too many wait; ``False`` when nobody reads any more.

        Called from the thread.
        """
        with self._room:
            while len(self._items) >= self._limit and not self._closed:
                self._room.wait()
            if self._closed:
                return False
            self._items.append(item)
            return self._wake()

    def finish(self) -> None:
        """Say that nothing follows and that the work has stopped.  Called from any thread."""
        with self._room:
            self._finished = True
            self._woken = False
            self._wake()

    def unbound(self) -> None:
        """Never let the thread wait again; it is about to end.  Called from any thread."""
        with self._room:
            self._limit = float("inf")
            self._room.notify_all()

    def close(self) -> None:
        """Say that nobody reads any more; what waits is dropped.  Called from any thread."""
        with self._room:
            self._closed = True
            self._items.clear()
            self._room.notify_all()

    async def take(self) -> list[T]:
        """Everything that is there, waiting for the first item; empty when nothing follows."""
        while True:
            self._ready.clear()
            with self._room:
                batch, self._items = self._items, []
                self._woken = False
                finished = self._finished
                self._room.notify_all()
            if batch or finished:
                return batch
            await self._ready.wait()

    async def finished(self) -> None:
        """Wait until the work has stopped, however often this task is cancelled meanwhile: what it has is not
        free before.

        Raises:
            asyncio.CancelledError: The task was cancelled; the work has stopped nevertheless.
        """
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):  # the cancel of a scope would come again at every turn
            while not self._finished:
                try:
                    await self._over.wait()
                except asyncio.CancelledError as interrupt:
                    cancelled = interrupt
        if cancelled is not None:
            raise cancelled

    def _wake(self) -> bool:
        if self._woken:
            return True
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._signal)
        except RuntimeError:
            # The reader's loop is closed: there is nobody left to tell.
            self._closed = True
        return not self._closed

    def _signal(self) -> None:
        self._ready.set()
        if self._finished:
            self._over.set()
