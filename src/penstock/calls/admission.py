"""Who may run now, who waits, who is refused: permits and a bounded queue in front of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from math import ceil

from penstock.errors import CallError, ErrorCode

MAX_RETRY_AFTER_S = 60


class Admission:
    """A number of permits and a bounded queue; first come, first served.

    Args:
        permits: How many may run at once.
        queue: How many may wait for a permit.
        name: What is being admitted to, for messages.
        monotonic: Seconds, to estimate when a place will be free.
    """

    def __init__(self, permits: int, queue: int, name: str, monotonic: Callable[[], float]) -> None:
        if permits < 1 or queue < 0:
            raise ValueError(
                f"{name}: at least 1 permit and a queue of at least 0, not {permits} and {queue}"
            )
        self._permits = permits
        self._queue_limit = queue
        self._name = name
        self._monotonic = monotonic
        self._running = 0
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        self._mean_run_s = 1.0

    @property
    def permits(self) -> int:
        """How many may run at once."""
        return self._permits

    @property
    def places(self) -> int:
        """How many may wait."""
        return self._queue_limit

    @property
    def running(self) -> int:
        """Permits in use."""
        return self._running

    @property
    def waiting(self) -> int:
        """Places taken in the queue."""
        return len(self._waiting)

    def resize(self, permits: int, queue: int) -> None:
        """Change how many may run at once, and how many may wait; 0 permits let nobody start.

        Whoever has a permit, or a place in the queue, keeps it.
        """
        self._permits, self._queue_limit = permits, queue
        while self._waiting and self._running < self._permits:
            self._serve_next()

    def enter(self) -> Place:
        """Take a permit if one is free, else a place in the queue.

        Raises:
            CallError: ``resource_exhausted``; the queue is full.
        """
        place = Place(self)
        if self._running < self._permits:
            self._grant(place)
        elif len(self._waiting) < self._queue_limit:
            self._waiting[place] = None
        else:
            raise self._full()
        return place

    def position(self, place: Place) -> int:
        """Return how many must be served before ``place``, counted from 1; 0 when it has its permit."""
        for index, waiting in enumerate(self._waiting, 1):
            if waiting is place:
                return index
        return 0

    def leave(self, place: Place) -> None:
        """Give back what ``place`` holds: its permit, which the next in the queue gets, or its place."""
        if place in self._waiting:
            del self._waiting[place]
        elif place.granted_at is not None:
            self._mean_run_s += 0.2 * (self._monotonic() - place.granted_at - self._mean_run_s)
            self._running -= 1
            self._serve_next()

    def _serve_next(self) -> None:
        if self._waiting and self._running < self._permits:
            self._grant(self._waiting.popitem(last=False)[0])

    def _grant(self, place: Place) -> None:
        self._running += 1
        place.grant(self._monotonic())

    def _full(self) -> CallError:
        wait_s = self._mean_run_s * (len(self._waiting) + 1) / max(1, self._permits)
        return CallError(
            f"{self._name} is busy ({self._permits} running, {len(self._waiting)} waiting); try again later",
            ErrorCode.RESOURCE_EXHAUSTED,
            retry_after_s=min(max(1, ceil(wait_s)), MAX_RETRY_AFTER_S),
        )


class Place:
    """One call's permit, or its place in the queue; held until ``leave``."""

    __slots__ = ("_admission", "_granted", "_left", "granted_at")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._granted: asyncio.Future[None] | None = None
        self._left = False
        self.granted_at: float | None = None

    @property
    def position(self) -> int:
        """Place in the queue, from 1; 0 with a permit."""
        return 0 if self.granted_at is not None else self._admission.position(self)

    async def admitted(self) -> None:
        """Return once this call has its permit."""
        if self.granted_at is None:
            self._granted = asyncio.get_running_loop().create_future()
            await self._granted

    def grant(self, now: float) -> None:
        """Receive the permit; called by the admission only."""
        self.granted_at = now
        if self._granted is not None and not self._granted.done():
            self._granted.set_result(None)

    def leave(self) -> None:
        """Give back the permit or the place in the queue; further calls do nothing."""
        if not self._left:
            self._left = True
            self._admission.leave(self)
