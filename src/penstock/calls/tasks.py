"""Tasks with an owner: nothing started here is lost, collected early, or fails in silence."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

_log = logging.getLogger("penstock.calls")

T = TypeVar("T")


class TaskOwner:
    """Holds the tasks started through it until they end; ``aclose`` cancels and waits for what is left."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, Any], *, name: str | None = None, awaited: bool = False
    ) -> asyncio.Task[Any]:
        """Run ``work`` on the running loop; an exception it ends with is logged.

        Args:
            awaited: Whoever starts it awaits it and handles its exception, which is then not logged.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        # An empty context: a task lives longer than whatever happened to start it.
        task.add_done_callback(self._tasks.discard if awaited else self._ended, context=_EMPTY)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], *, name: str | None = None) -> T:
        """Run ``work`` to its end in a task of its own, however often the one that waits is cancelled
        meanwhile: a second cancel goes through a shield.

        Raises:
            asyncio.CancelledError: The one that waits was cancelled; the work is done nevertheless.
        """
        task: asyncio.Task[T] = self.start(work, name=name, awaited=True)
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):  # the cancel of a scope would come again at every turn
            while not task.done():
                try:
                    await asyncio.wait((task,))
                except asyncio.CancelledError as interrupt:
                    cancelled = interrupt
        result = task.result()
        if cancelled is not None:
            raise cancelled
        return result

    async def settle(self, timeout_s: float) -> None:
        """Wait until every task has ended, at most ``timeout_s`` seconds; none is cancelled."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=timeout_s)

    async def aclose(self, timeout_s: float | None = None) -> int:
        """Cancel every task and wait until they have ended, at most ``timeout_s`` seconds; returns how many
        have not (they wait for threads that cannot be interrupted)."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if not tasks:
            return 0
        _, left = await asyncio.wait(tasks, timeout=timeout_s)
        return len(left)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)


_EMPTY = contextvars.Context()
