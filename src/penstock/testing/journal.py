"""``Journal``: what happened in author code, by request id, with waits instead of sleeps."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

from penstock.runtime.context import get_request_id


class Journal:
    """Records events of calls, from any thread, and lets tests wait for them.

    The model zoo records ``started``, ``cancelled`` (the code felt its cancel), ``aborted`` (its abort
    callback ran), ``raised`` and ``finished``; a test may record words of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._events: list[tuple[str, str]] = []
        self._waiting: list[Callable[[], object]] = []

    def record(self, event: str, request_id: str | None = None) -> None:
        """Note that ``event`` happened to a call: without ``request_id`` the one this code runs in."""
        whose = request_id or get_request_id() or ""
        with self._lock:
            self._events.append((whose, event))
            waiting, self._waiting = self._waiting, []
            self._lock.notify_all()
        for wake in waiting:
            wake()

    def of(self, request_id: str) -> tuple[str, ...]:
        """Return the events of one call, in order."""
        with self._lock:
            return tuple(event for whose, event in self._events if whose == request_id)

    def count(self, event: str, request_id: str | None = None) -> int:
        """Return how often ``event`` happened, to one call or to all."""
        with self._lock:
            return self._count(event, request_id)

    async def wait(self, event: str, request_id: str | None = None, *, times: int = 1) -> None:
        """Return once ``event`` has happened ``times`` times; bound it with ``anyio.fail_after``."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._count(event, request_id) >= times:
                    return
                happened = asyncio.Event()
                self._waiting.append(partial(loop.call_soon_threadsafe, happened.set))
            await happened.wait()

    def wait_blocking(self, event: str, request_id: str | None = None, *, timeout_s: float = 5.0) -> None:
        """Return once ``event`` has happened; for code in threads.

        Raises:
            TimeoutError: It did not within ``timeout_s`` seconds.
        """
        with self._lock:
            if not self._lock.wait_for(lambda: self._count(event, request_id) > 0, timeout_s):
                raise TimeoutError(f"no {event!r} within {timeout_s:g} s; there are {Counter(self._events)}")

    def _count(self, event: str, request_id: str | None) -> int:
        return sum(what == event and request_id in (None, whose) for whose, what in self._events)
