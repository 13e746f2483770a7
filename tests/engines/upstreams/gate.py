"""A gate that lets a fake model say only so many tokens: tests wait for events, never for time."""

from __future__ import annotations

import asyncio
import math


class Gate:
    """Token number ``n`` passes once ``limit`` is above ``n``; at first all do."""

    def __init__(self) -> None:
        self.limit: float = math.inf
        self._waiting: set[Worker] = set()

    def hold(self, after: int) -> None:
        """Let ``after`` tokens of each answer pass, and hold back the next."""
        self.limit = after
        self._wake()

    def open(self) -> None:
        """Let everything pass."""
        self.limit = math.inf
        self._wake()

    @property
    def waiting(self) -> int:
        """How many answers are held back."""
        return len(self._waiting)

    def _wake(self) -> None:
        for worker in self._waiting:
            worker.poked.set()

    async def passes(self, number: int, worker: Worker) -> None:
        """Wait until token ``number`` may be said, or the worker is stopped."""
        self._waiting.add(worker)
        try:
            while number >= self.limit and not worker.stopped:
                await worker.poked.wait()
                worker.poked.clear()
        finally:
            self._waiting.discard(worker)


class Worker:
    """What says tokens, and may be told to stop."""

    def __init__(self) -> None:
        self.stopped = False
        self.poked = asyncio.Event()

    def stop(self) -> None:
        """Say nothing more."""
        self.stopped = True
        self.poked.set()
