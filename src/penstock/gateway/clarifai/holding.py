"""New streams that are not to be used yet.

A thread of a replica that has written the whole of an item goes on to its next stream, and as soon as an item
comes on that, it cuts off what was not read of the last: the end of somebody's call.  Nothing says which
streams are of one thread, but while no more are open than there are threads, each has one of its own.  So a
stream that opens while others have items is left alone until that is so, or these others have ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.gateway.clarifai.lanes import Lane

SETTLE_S = 0.01
"""So long no more streams than threads have to be open: the end of an item and its thread's next stream are
seen in any order, but one shortly after the other."""
QUIET_S = 0.25  # a stream on which so long nothing comes is read up: its thread is not the one that went on


@dataclass
class _Held:
    lane: Lane
    behind: set[Lane]
    sure: bool  # whether the number of threads tells anything: all of them were there
    since: float


class Holding:
    """Holds new lanes back."""

    def __init__(self) -> None:
        self._held: list[_Held] = []

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lane: Lane, behind: Iterable[Lane], now: float, *, sure: bool) -> bool:
        """Hold a lane that opens while others have items; returns whether it is held.

        Args:
            sure: All threads of the replica had streams.
        """
        others = set(behind)
        if others:
            self._held.append(_Held(lane, others, sure, now))
        return bool(others)

    def discard(self, lane: Lane) -> None:
        """A lane is gone, or its item is over; no others are behind it any more."""
        self._held = [held for held in self._held if held.lane is not lane]
        for held in self._held:
            held.behind.discard(lane)

    def take(self, now: float, distinct_since: float | None) -> list[Lane]:
        """Return the lanes that may be used now.

        Args:
            distinct_since: Since when no more streams are open than there are threads; None if more are.
        """
        for held in self._held:
            held.behind = {lane for lane in held.behind if not _is_read_up(lane, held.since, now)}
        free = [held for held in self._held if _is_free(held, now, distinct_since)]
        self._held = [held for held in self._held if held not in free]
        return [held.lane for held in free]


def _is_free(held: _Held, now: float, distinct_since: float | None) -> bool:
    if not held.behind:
        return True
    if distinct_since is None or not held.sure:
        return False
    return now - max(distinct_since, held.since) >= SETTLE_S


def _is_read_up(lane: Lane, since: float, now: float) -> bool:
    began = lane.reading_since
    return began is not None and began >= since and now - began >= QUIET_S
