"""A clock that tests move by hand: time is controlled, never slept for."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

EPOCH = 1_704_067_200.0  # 2024-01-01T00:00:00Z, the time of the protocol page's samples


class FakeClock:
    """Stands still until it is moved; for everything that takes a ``penstock.calls.clock.Clock``.

    Belongs to the event loop's thread: timers run inside ``advance``, on the caller's stack.

    Args:
        wall: Unix seconds it starts at.
    """

    def __init__(self, wall: float = EPOCH) -> None:
        self._wall = wall
        self._monotonic = 0.0
        self._order = count()  # among timers of one moment the first planned fires first
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def wall(self) -> float:
        """Unix seconds; may jump."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._monotonic

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> FakeTimer:
        """Call ``callback`` in the ``advance`` that reaches ``delay_s`` seconds from now."""
        timer = FakeTimer(callback)
        heappush(self._timers, (self._monotonic + delay_s, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move both times on, and fire what falls due on the way, in order and each at its own time.

        Raises:
            ValueError: ``seconds`` is negative; monotonic time never goes back.
        """
        if seconds < 0:
            raise ValueError(f"time goes forward; {seconds} s does not (see jump_wall)")
        until = self._monotonic + seconds
        while self._timers and self._timers[0][0] <= until:
            due, _, timer = heappop(self._timers)
            self._move_to(due)
            timer.fire()
        self._move_to(until)

    def hold(self, seconds: float) -> None:
        """Move both times on and fire nothing, as while code holds the event loop: what falls due meanwhile
        is late, and fires in the next ``advance``."""
        self._move_to(self._monotonic + seconds)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back; monotonic time and timers do not notice."""
        self._wall += seconds

    @property
    def pending(self) -> int:
        """Timers that wait and were not cancelled."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def _move_to(self, moment: float) -> None:
        # A timer planned in the past is due at once; it does not turn time back.
        step = max(0.0, moment - self._monotonic)
        self._monotonic += step
        self._wall += step


class FakeTimer:
    """A timer of a ``FakeClock``."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not fire."""
        self.cancelled = True

    def fire(self) -> None:
        """Call back, unless cancelled; for the clock only."""
        if not self.cancelled:
            self.cancelled = True
            self._callback()
