"""The one clock: passed in, so that tests can jump it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Tells the time and calls back later."""

    def wall(self) -> float:
        """Unix seconds, for people and frames; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go forward, for everything that is measured or limited."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the event loop after ``delay_s`` seconds."""
        ...


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """See ``Clock.call_later``."""
        return asyncio.get_running_loop().call_later(delay_s, callback)
