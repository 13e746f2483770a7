"""Cuts a wait that takes too long, or that nobody wants any more, at next to no cost per wait.

A cancel scope with a deadline costs 6 µs a wait, which is more than all else that is done for a token; here
one timer is set for many waits.
"""

from __future__ import annotations

import asyncio
import math
import sys
from types import TracebackType

from penstock.engines.upstream.patience import Deadlines
from penstock.errors import CallError

_EARLY_S = 0.001


class Watch:
    """A context for the waits of one generation, one after the other::

        with watch:
            chunk = await something()

    The wait is cancelled when its deadline has passed, or by ``cut``; it then raises the reason.

    Args:
        deadlines: When each wait must be over.
    """

    __slots__ = ("_cancelling", "_deadlines", "_due", "_loop", "_struck", "_task", "_timer", "cause")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self.cause: CallError | None = None
        """Why the waits were cut, once they were."""
        self._struck = False
        self._cancelling = 0

    @property
    def waiting(self) -> bool:
        """Whether somebody waits now."""
        return self._task is not None

    def __enter__(self) -> None:
        if self.cause is not None:
            raise self.cause
        now = self._loop.time()
        self._due = due = self._deadlines.due(now)
        if due <= now:
            self.cause = self._deadlines.overdue()
            raise self.cause
        if due < math.inf and (self._timer is None or due < self._timer.when()):
            self._arm(due)
        task = self._task = asyncio.current_task()
        self._cancelling = _cancelling(task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if not self._struck:
            return
        self._struck = False
        others = _uncancel(task) - self._cancelling
        # Somebody else cancelled the task as well: theirs goes before ours.
        if kind is not None and not (issubclass(kind, asyncio.CancelledError) and others > 0):
            assert self.cause is not None
            raise self.cause from None

    def cut(self, cause: CallError) -> None:
        """End the wait of now, and every later one, with ``cause``.  Called on the loop's thread."""
        if self.cause is None:
            self.cause = cause
            self._strike()

    def close(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, due: float) -> None:
        self.close()
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() + _EARLY_S < self._due:
            self._arm(self._due)
            return
        self.cause = self._deadlines.overdue()
        self._strike()

    def _strike(self) -> None:
        task = self._task
        # Of whom somebody else has cancelled, a second cancel would only break what is being closed.
        if task is not None and not self._struck and _cancelling(task) == self._cancelling:
            self._struck = True
            task.cancel()


if sys.version_info >= (3, 11):

    def _cancelling(task: asyncio.Task[object] | None) -> int:
        return 0 if task is None else task.cancelling()

    def _uncancel(task: asyncio.Task[object] | None) -> int:
        return 0 if task is None else task.uncancel()

else:
    # Python 3.10 does not count; there a cancel of somebody else in the same moment looks like ours.
    def _cancelling(task: asyncio.Task[object] | None) -> int:
        return 0

    def _uncancel(task: asyncio.Task[object] | None) -> int:
        return 0
