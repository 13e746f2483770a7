"""``isolation: thread``: an async command in a thread, on an event loop of its own, so that what blocks in it
does not hold the server's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from penstock.runtime.threads import DaemonThreads, ThreadedItems

T = TypeVar("T")


class OwnLoop:
    """Runs one coroutine on a loop of its own in the thread that calls ``run``; ``cancel`` reaches it from
    another.

    Args:
        felt: Called in that thread when a cancel has reached the coroutine; long after ``cancel`` where that
            blocks.
    """

    def __init__(self, felt: Callable[[], object]) -> None:
        self._felt = felt
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run what ``make`` returns to its end.

        Raises:
            asyncio.CancelledError: It was cancelled, perhaps before it began.
        """
        return asyncio.run(self._run(make))

    def cancel(self, _: object = None) -> None:
        """Cancel the coroutine; what has ended, or is closing, is not disturbed."""
        with self._lock:
            self._cancelled = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._interrupt)

    def leave_alone(self) -> None:
        """Have a cancel no longer reach the coroutine, which is closing by itself; called inside it."""
        self._task = None

    async def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._cancelled:
                raise asyncio.CancelledError
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            return await make()
        finally:
            with self._lock:
                self._loop = None

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()
            asyncio.get_running_loop().call_soon(self._felt)  # behind the step at which it is thrown


class OwnLoopItems(ThreadedItems):
    """An async generator under way in a thread, on a loop of its own.

    Args:
        threads: Where it runs.
        context: The context it runs in.
        make: Makes the generator.
        loop: Its loop.
    """

    def __init__(
        self,
        threads: DaemonThreads,
        context: Context,
        make: Callable[[], AsyncGenerator[Any, None]],
        loop: OwnLoop,
    ) -> None:
        self._own = loop
        super().__init__(threads, context, make)

    def _run(self) -> None:
        self._own.run(self._drive)

    async def _drive(self) -> None:
        items = self._make()
        try:
            async for item in items:
                if not self._put(item):
                    self._own.leave_alone()
                    break
        finally:
            await items.aclose()
