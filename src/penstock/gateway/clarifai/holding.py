"""New streams that are not to be used yet.

A thread of a replica that has written the whole of an item goes on to its next stream, and as soon as an item
comes on that, it cuts off what was not read of the last: the end of somebody's call.  Nothing says which
streams are of one thread.  So a stream that opens before the end of an older item was read is left alone,
until those that were under way have ended, or nothing more of them is there to be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.gateway.clarifai.lanes import Lane

SETTLE_S = 0.01
"""The end of an item is there so soon after its thread's next stream, or it is not due."""
MATCH_S = 0.05  # an item's end that is read so soon behind a new stream is that of the same thread


class ReadOrder:
    """In which order reads began and were done; all streams of a server share one.

    What is there already is handed out in the order in which it was asked for.  A read that waits while one
    that began later is done has nothing to read.
    """

    def __init__(self) -> None:
        self._begun = 0
        self.latest = 0
        """The last begun of those that are done."""

    def begin(self) -> int:
        """Return the number of a read that begins."""
        self._begun += 1
        return self._begun

    def done(self, number: int) -> None:
        """A read is done."""
        self.latest = max(self.latest, number)

    @property
    def begun(self) -> int:
        """The number of the last read that began."""
        return self._begun


@dataclass
class _Held:
    lane: Lane
    behind: set[Lane]
    number: int  # reads that began later show how far the others are
    since: float


class Holding:
    """Holds new lanes back.

    Args:
        order: Of the reads.
    """

    def __init__(self, order: ReadOrder) -> None:
        self._order = order
        self._held: list[_Held] = []

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lane: Lane, behind: Iterable[Lane], now: float) -> bool:
        """Hold a lane until those that have items have ended or are read up; returns whether it must be."""
        others = set(behind)
        if others:
            self._held.append(_Held(lane, others, self._order.begun, now))
        return bool(others)

    def discard(self, lane: Lane) -> None:
        """A lane is gone; others are behind it no more."""
        self._held = [held for held in self._held if held.lane is not lane]
        for held in self._held:
            held.behind.discard(lane)

    def match(self, ended: Lane, now: float) -> Lane | None:
        """An item has ended: return the stream that its thread has opened meanwhile, if it has.

        Where reading lags, all of it does, and items end in the order in which the next streams opened.  But
        where one is not read at all, as its caller takes nothing, the older streams may be its thread's.
        """
        for held in self._held:
            if ended in held.behind and all(lane is ended or lane.reading for lane in held.behind):
                self._held.remove(held)
                return held.lane
        if self._held and now - self._held[-1].since <= MATCH_S:
            return self._held.pop().lane
        return None

    def take(self, now: float) -> list[Lane]:
        """Return the lanes that may be used now."""
        free = [held for held in self._held if self._is_free(held, now)]
        self._held = [held for held in self._held if held not in free]
        return [held.lane for held in free]

    def _is_free(self, held: _Held, now: float) -> bool:
        if now - held.since < SETTLE_S:
            return not held.behind
        held.behind = {lane for lane in held.behind if not self._is_read_up(lane, held, now)}
        return not held.behind

    def _is_read_up(self, lane: Lane, held: _Held, now: float) -> bool:
        if lane.reading <= held.number:
            return False  # it is not read, or the read began before
        return lane.reading < self._order.latest or now - lane.reading_since >= SETTLE_S
