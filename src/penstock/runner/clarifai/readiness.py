"""Whether an app can take calls now: streams are open only while it can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from penstock.calls.clock import Clock, Timer
from penstock.calls.tasks import TaskOwner
from penstock.runtime.app import App

LOOK_S = 3.0  # how often it is looked whether the app's code can run

_log = logging.getLogger("penstock.runner")


class Readiness:
    """Watches an app.

    Args:
        app: It is started.
        clock: Tells the time.
        lost: Called when the app can take no calls any more.
    """

    def __init__(self, app: App, clock: Clock, lost: Callable[[], None]) -> None:
        self._app = app
        self._clock = clock
        self._lost = lost
        self._tasks = TaskOwner()
        self._timer: Timer | None = None
        self.ready = asyncio.Event()

    async def look(self) -> None:
        """See how it is now, and again in a while."""
        health = await self._app.health()
        ready = self._app.answers and health.status == "healthy"
        if ready and not self.ready.is_set():
            self.ready.set()
        elif not ready and self.ready.is_set():
            _log.warning("no work is taken: %s is %s (%s)", health.name, health.status, health.phase)
            self.ready.clear()
            self._lost()
        self._timer = self._clock.call_later(LOOK_S, self._again)

    async def aclose(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.aclose()
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._tasks.start(self.look(), name="readiness")
