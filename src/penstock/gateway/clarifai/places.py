"""The data streams of a replica, as places for calls: each idle one is one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from penstock.calls.clock import Clock
from penstock.gateway.clarifai.holding import SETTLE_S, Holding
from penstock.gateway.clarifai.lanes import Lane
from penstock.gateway.clarifai.streams import Phase

REOPEN_S = 2.0  # how long the next stream of a thread counts as a place already


class Places:
    """Keeps the streams, and says which may be used.

    Args:
        clock: Tells the time.
        changed: Told when a place may have become free, or there are more or fewer.
    """

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._lanes: set[Lane] = set()  # they are idle, or have an item
        self._cancelled: set[Lane] = set()  # their items are not wanted any more, but run
        self._ending: set[Lane] = set()  # their items are over
        self._idle: deque[Lane] = deque()
        self._holding = Holding()
        self._due: deque[float] = deque()  # until when streams are expected to be opened again
        self._distinct_since: float | None = 0.0  # when each stream began to have a thread of its own
        self.opened = 0
        """How many have opened so far."""
        self.threads = 0
        """How many threads the replica has, as far as is known."""

    def __iter__(self) -> Iterator[Lane]:
        """All streams, those without an item first."""
        streams = (*self._lanes, *self._cancelled, *self._ending)
        return iter(sorted(streams, key=lambda lane: lane.stream.phase is not Phase.IDLE))

    @property
    def capacity(self) -> int:
        """How many there are, free or not; at least 1."""
        return max(1, min(self.threads, self._there))

    @property
    def any(self) -> bool:
        """Whether there are streams, or there will be in a moment."""
        return bool(self._lanes or self._cancelled or self._ending or self._due)

    @property
    def free(self) -> int:
        """How many may be used now."""
        return len(self._idle)

    def take(self, *, primary: bool = False) -> Lane | None:
        """Return a stream to be used, that which waits longest; None if there is none.

        Args:
            primary: Only that of the main thread will do.
        """
        if not primary:
            return self._idle.popleft() if self._idle else None
        lane = next((lane for lane in self._idle if lane.primary), None)
        if lane is not None:
            self._idle.remove(lane)
        return lane

    # -- what becomes of them ------------------------------------------------------------------------

    def open(self, lane: Lane) -> None:
        """A stream has opened."""
        self.opened += 1
        sure = self._there >= self.threads
        expected = bool(self._due)
        if expected:
            self._due.popleft()
        busy = [other for other in self._lanes if other.stream.phase is Phase.BUSY]
        self._lanes.add(lane)
        self._compare()
        # What answers once is read before the next stream of its thread is taken.
        is_safe = expected and not any(other.stream.streams for other in busy)
        if is_safe or not self._holding.hold(lane, busy, self._clock.monotonic(), sure=sure):
            self._idle.append(lane)
            self._count()
        elif len(self._holding) == 1:
            self._clock.call_later(SETTLE_S, self._look)
        self._changed()

    def cancel(self, lane: Lane) -> None:
        """The item of a stream is not wanted any more: nobody minds if it is cut off."""
        if lane in self._lanes:
            self._lanes.discard(lane)
            self._cancelled.add(lane)
            self._let_go(lane, comes_again=False)

    def leave(self, lane: Lane) -> None:
        """The item of a stream is over: its thread closes the stream, and opens another."""
        self._lanes.discard(lane)
        self._cancelled.discard(lane)
        self._ending.add(lane)
        self._let_go(lane, comes_again=True)

    def close(self, lane: Lane, *, comes_again: bool) -> None:
        """A stream has ended.

        Args:
            comes_again: Its thread opens another at once.
        """
        if lane in self._idle:
            self._idle.remove(lane)
        is_known = lane in self._ending  # ... that its thread goes on
        for streams in (self._lanes, self._cancelled, self._ending):
            streams.discard(lane)
        self._let_go(lane, comes_again=comes_again and not is_known)

    def expire(self) -> None:
        """Expect no more what should have come long ago."""
        now = self._clock.monotonic()
        while self._due and self._due[0] <= now:
            self._due.popleft()
        self._changed()

    # -- inside --------------------------------------------------------------------------------------

    @property
    def _there(self) -> int:
        return len(self._lanes) + len(self._due)

    def _count(self) -> None:
        if not len(self._holding):
            self.threads = max(self.threads, self._there)

    def _compare(self) -> None:
        if self._there > self.threads:
            self._distinct_since = None
        elif self._distinct_since is None:
            self._distinct_since = self._clock.monotonic()

    def _let_go(self, lane: Lane, *, comes_again: bool) -> None:
        self._holding.discard(lane)
        if comes_again and self._there < self.threads:  # else its thread has opened its next already
            self._due.append(self._clock.monotonic() + REOPEN_S)
        self._compare()
        self._release()
        self._changed()

    def _look(self) -> None:
        if self._release():
            self._changed()
        if len(self._holding):
            self._clock.call_later(SETTLE_S, self._look)

    def _release(self) -> bool:
        if not len(self._holding):
            return False
        free = self._holding.take(self._clock.monotonic(), self._distinct_since)
        self._idle += free
        self._count()
        return bool(free)
