"""What of a task waits to be posted: in batches, in order, and never more than so much."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner
from penstock.runner.clarifai.posting import Annotation, Poster, PostFailed
from penstock.runner.clarifai.task_metrics import Metrics
from penstock.runner.pausing import pause

BATCH = 128  # annotations
BATCH_BYTES = 8 * 1024 * 1024
FLUSH_S = 1.0  # how long an annotation may wait for others
MAX_WAITING = 512  # annotations; who has more waits
MAX_BYTES = 64 * 1024 * 1024


class Uploads:
    """Posts annotations.

    Args:
        poster: Takes them.
        metrics: Counts them.
        clock: Tells the time.
    """

    def __init__(self, poster: Poster, metrics: Metrics, clock: Clock) -> None:
        self._poster = poster
        self._metrics = metrics
        self._clock = clock
        self._tasks = TaskOwner()
        self._waiting: deque[Annotation] = deque()
        self._bytes = 0
        self._due = asyncio.Event()  # there is a batch, or it is time for what there is
        self._there = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._flushing = False
        self._failure: PostFailed | None = None
        self._tasks.start(self._run(), name="uploads")

    async def put(self, annotations: Iterable[Annotation]) -> None:
        """Have annotations posted; returns once there is room for them.

        Raises:
            PostFailed: What came before cannot be posted.
        """
        self._raise()
        for annotation in annotations:
            while self._failure is None and self._is_full:
                self._room.clear()
                await self._room.wait()
            self._raise()
            self._waiting.append(annotation)
            self._bytes += annotation.ByteSize()
            self._idle.clear()
            self._there.set()
            self._look()

    async def flush(self) -> None:
        """Return once all is posted.

        Raises:
            PostFailed: It cannot be.
        """
        self._flushing = True
        self._look()
        await self._idle.wait()
        self._flushing = False
        self._raise()

    async def aclose(self) -> None:
        """Post nothing of what waits."""
        await self._tasks.aclose()
        self._drop()

    def _drop(self) -> None:
        self._metrics.dropped(len(self._waiting))
        self._waiting.clear()
        self._bytes = 0
        self._metrics.waiting = 0

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_BYTES

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _look(self) -> None:
        self._metrics.waiting = len(self._waiting)
        if self._flushing or len(self._waiting) >= BATCH or self._bytes >= BATCH_BYTES:
            self._due.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._there.wait()
                if not self._flushing and len(self._waiting) < BATCH:
                    await pause(FLUSH_S, self._due, self._clock, self._tasks)
                await self._post(self._batch())
                self._due.clear()
                self._room.set()
                self._look()
                if not self._waiting:
                    self._there.clear()
                    self._idle.set()
        except PostFailed as failure:
            self._failure = failure
            self._drop()
            self._room.set()
            self._idle.set()

    def _batch(self) -> list[Annotation]:
        batch: list[Annotation] = []
        size = 0
        while self._waiting and len(batch) < BATCH and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1].ByteSize()
        self._bytes -= size
        return batch

    async def _post(self, batch: list[Annotation]) -> None:
        began = self._clock.monotonic()
        try:
            posted = await self._poster.annotations(batch)
        except BaseException:
            self._metrics.dropped(len(batch))
            raise
        self._metrics.posted(posted, self._clock.monotonic() - began)
