"""Who may run now, who waits, who is refused: permits and a bounded queue in front of them.

A call may need more than a permit: room in the KV cache of an engine, which several admissions share.  It
then waits in the same queue until it can have both.

Engines are used from several event loops, and tell from their own threads what a call needs after all; so
all of this happens under one lock.  Nothing waits within it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import NamedTuple, Protocol

from penstock.errors import CallError, ErrorCode

MAX_RETRY_AFTER_S = 60

LOCK = threading.RLock()
"""Held by whoever changes who may run; hooks of a KV pool are called within it, and may look at the pool."""


class Shortage(NamedTuple):
    """What a call waits for beside a permit, in words, and for how many seconds it would have to."""

    says: str
    wait_s: float


class Need(Protocol):
    """What one call needs beside its permit."""

    def take(self, place: Place) -> bool:
        """Take it, if it is to be had now; else ``place`` is retried when that may have changed.

        Raises:
            CallError: It will not be to be had.
        """
        ...

    def drop(self) -> None:
        """Give it back, or want it no longer; further calls do nothing."""
        ...

    def shortage(self) -> Shortage | None:
        """Return what is missing, if that is why others wait for the same."""
        ...


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
        with LOCK:
            self._permits, self._queue_limit = permits, queue
            self.serve()

    def enter(self, need: Need | None = None) -> Place:
        """Take a permit, and what else is needed, if both are to be had; else a place in the queue.

        Raises:
            CallError: ``resource_exhausted``: the queue is full, or what is needed will not be to be had; or
                what else it was refused for.
        """
        with LOCK:
            place = Place(self, need)
            if not self._waiting and self._running < self._permits and place.take():
                self._grant(place)
            elif len(self._waiting) < self._queue_limit:
                self._waiting[place] = None
            else:
                error = self._full(need)
                place.leave()
                raise error
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
        if place.need is not None:
            place.need.drop()
        self.serve()

    def serve(self) -> None:
        """Let those in who wait first, as many as can be."""
        while self._waiting and self._running < self._permits:
            place = next(iter(self._waiting))
            try:
                if not place.take():
                    return
            except CallError as error:
                del self._waiting[place]
                place.refuse(error)
            else:
                del self._waiting[place]
                self._grant(place)

    def _grant(self, place: Place) -> None:
        self._running += 1
        place.grant(self._monotonic())

    def _full(self, need: Need | None) -> CallError:
        wait_s = self._mean_run_s * (len(self._waiting) + 1) / max(1, self._permits)
        says = f"{self._permits} running"
        shortage = None if need is None else need.shortage()
        if shortage is not None:
            says, wait_s = shortage.says, max(shortage.wait_s, wait_s if self._waiting else 0)
        return CallError(
            f"{self._name} is busy ({says}, {len(self._waiting)} waiting); try again later",
            ErrorCode.RESOURCE_EXHAUSTED,
            retry_after_s=whole_seconds(wait_s),
        )


def whole_seconds(wait_s: float) -> int:
    """Return after how many seconds to try again."""
    return min(max(1, ceil(wait_s)), MAX_RETRY_AFTER_S)


class Place:
    """One call's permit, or its place in the queue; held until ``leave``.

    Args:
        admission: Whose permit.
        need: What else the call needs.
    """

    __slots__ = ("_admission", "_granted", "_left", "_refusal", "granted_at", "need")

    def __init__(self, admission: Admission, need: Need | None = None) -> None:
        self._admission = admission
        self._granted: asyncio.Future[None] | None = None
        self._left = False
        self._refusal: CallError | None = None
        self.granted_at: float | None = None
        self.need = need

    @property
    def position(self) -> int:
        """Place in the queue, from 1; 0 with a permit."""
        return 0 if self.granted_at is not None else self._admission.position(self)

    async def admitted(self) -> None:
        """Return once this call has its permit, and what else it needs.

        Raises:
            CallError: It will not get what it needs.
        """
        with LOCK:
            waits = self.granted_at is None and self._refusal is None
            if waits:
                self._granted = asyncio.get_running_loop().create_future()
        if waits and self._granted is not None:
            await self._granted
        if self._refusal is not None:
            raise self._refusal

    def take(self) -> bool:
        """Take what else is needed, if it is to be had; called by the admission only.

        Raises:
            CallError: As ``Need.take``.
        """
        return self.need is None or self.need.take(self)

    def grant(self, now: float) -> None:
        """Receive the permit; called by the admission only."""
        self.granted_at = now
        self._tell()

    def refuse(self, error: CallError) -> None:
        """Learn that there will be no permit; called by the admission only."""
        self._refusal = error
        self._tell()

    def retry(self) -> None:
        """Have the admission look again whether this call can have what it needs."""
        self._admission.serve()

    def leave(self) -> None:
        """Give back the permit or the place in the queue; further calls do nothing."""
        with LOCK:
            if not self._left:
                self._left = True
                self._admission.leave(self)

    def _tell(self) -> None:
        future = self._granted
        if future is None:
            return
        loop = future.get_loop()
        if _running_loop() is loop:
            _wake(future)
        else:
            with suppress(RuntimeError):  # that loop is closed, and its calls with it
                loop.call_soon_threadsafe(_wake, future)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
