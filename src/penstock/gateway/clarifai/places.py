"""The data streams of a replica, as places for calls: each idle one is one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from penstock.calls.clock import Clock
from penstock.gateway.clarifai.holding import SETTLE_S, Holding, ReadOrder
from penstock.gateway.clarifai.lanes import Lane
from penstock.gateway.clarifai.streams import Phase

REOPEN_S = 2.0  # how long the next stream of a thread counts as a place already
EARLY_S = 0.1
"""How long a stream that opens unexpectedly is no place more: most of them come a little before the end of
their thread's last."""


class Places:
    """Keeps the streams, and says which may be used.

    Args:
        clock: Tells the time.
        order: Of the reads of all streams.
        changed: Told when a place may have become free, or there are more or fewer.
    """

    def __init__(self, clock: Clock, order: ReadOrder, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._lanes: set[Lane] = set()  # they are idle, or have an item
        self._ending: set[Lane] = set()  # their items are over
        self._idle: deque[Lane] = deque()
        self._holding = Holding(order)
        self._due: deque[float] = deque()  # until when streams are expected to be opened again
        self._early: dict[Lane, None] = {}  # those that were not expected

    def __iter__(self) -> Iterator[Lane]:
        """All streams, those without an item first."""
        streams = (*self._lanes, *self._ending)
        return iter(sorted(streams, key=lambda lane: lane.stream.phase is not Phase.IDLE))

    @property
    def capacity(self) -> int:
        """How many there are, free or not; at least 1."""
        return max(1, len(self._lanes) + len(self._due) - len(self._early))

    @property
    def any(self) -> bool:
        """Whether there are streams, or there will be in a moment."""
        return bool(self._lanes or self._ending or self._due)

    @property
    def free(self) -> int:
        """How many may be used now."""
        return len(self._idle)

    def take(self) -> Lane | None:
        """Return a stream to be used, that which waits longest; None if there is none."""
        return self._idle.popleft() if self._idle else None

    # -- what becomes of them ------------------------------------------------------------------------

    def open(self, lane: Lane) -> None:
        """A stream has opened."""
        if self._due:
            self._due.popleft()
            self._idle.append(lane)
        else:
            self._early[lane] = None
            self._clock.call_later(EARLY_S, partial(self._is_one_more, lane))
            self._place(lane)
        self._lanes.add(lane)
        self._changed()

    def leave(self, lane: Lane) -> None:
        """The item of a stream is over: its thread closes the stream, and opens another."""
        self._lanes.discard(lane)
        self._ending.add(lane)
        self._early.pop(lane, None)
        self._expect(lane)
        self._changed()

    def close(self, lane: Lane, *, comes_again: bool) -> None:
        """A stream has ended.

        Args:
            comes_again: Its thread opens another at once.
        """
        if lane in self._idle:
            self._idle.remove(lane)
        self._early.pop(lane, None)
        if comes_again and lane in self._lanes:
            self._expect(lane)
        self._holding.discard(lane)
        self._lanes.discard(lane)
        self._ending.discard(lane)
        self._release()
        self._changed()

    def expire(self) -> None:
        """Expect no more what should have come long ago."""
        now = self._clock.monotonic()
        while self._due and self._due[0] <= now:
            self._due.popleft()
        self._changed()

    # -- inside --------------------------------------------------------------------------------------

    def _expect(self, ended: Lane) -> None:
        """A thread goes on to its next stream, if that has not come already."""
        now = self._clock.monotonic()
        lane = self._holding.match(ended, now)
        if lane is not None:
            self._idle.append(lane)
        if self._early:
            del self._early[lane if lane in self._early else next(iter(self._early))]
        else:
            self._due.append(now + REOPEN_S)

    def _is_one_more(self, lane: Lane) -> None:
        if lane in self._early:
            del self._early[lane]
            self._changed()

    def _place(self, lane: Lane) -> None:
        busy = (other for other in self._lanes if other.stream.streams)
        if not self._holding.hold(lane, busy, self._clock.monotonic()):
            self._idle.append(lane)
        elif len(self._holding) == 1:
            self._clock.call_later(SETTLE_S, self._look)

    def _look(self) -> None:
        if self._release():
            self._changed()
        if len(self._holding):
            self._clock.call_later(SETTLE_S, self._look)

    def _release(self) -> bool:
        free = self._holding.take(self._clock.monotonic()) if len(self._holding) else []
        self._idle += free
        return bool(free)
