"""A place for one item at a time: a stream is held open for it, and another one after each item."""

from __future__ import annotations

import asyncio

from penstock.calls.tasks import TaskOwner
from penstock.runner.clarifai.link import Connection
from penstock.runner.clarifai.work_stream import Place, WorkStream
from penstock.runner.pausing import pause
from penstock.runtime.supervisor import Backoff

BACKOFF_S = 1.0  # most before another stream is opened after a bad end; doubled from one time to the next
BACKOFF_MOST_S = 30.0
STEADY_S = 5.0  # a stream that was open so long was a good one
QUICK = 2  # streams without work that may end at once, one after the other, before there is a wait
ADMISSION_S = 0.5  # after which a model is asked again that wants no more work
LEAVE_S = 5.0  # how long a server may take to end a stream on which nothing more comes


class Slot:
    """Takes one item after the other.

    Args:
        place: What it shares with others.
        primary: Whether it is the first: tasks of annotation are to be handed to it, and it takes items also
            while the model wants no more.
    """

    def __init__(self, place: Place, *, primary: bool = False) -> None:
        self._place = place
        self._primary = primary
        self._tasks = TaskOwner()
        self._backoff = Backoff(BACKOFF_S, BACKOFF_MOST_S, place.chance, fixed=0.0)
        self._quick = 0
        self._over = asyncio.Event()
        self._stream: WorkStream | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether a stream is there on which an item may come, as far as is known."""
        return self._stream is not None and self._stream.open

    @property
    def busy(self) -> bool:
        """Whether there is an item."""
        return self._stream is not None and self._stream.worked

    def start(self) -> None:
        """Begin to take items."""
        self._running = self._tasks.start(self._run(), name="slot")

    def withdraw(self) -> None:
        """End the stream if no item has come on it."""
        if self._stream is not None and not self.busy:
            self._stream.cancel()

    def leave(self) -> None:
        """Take no more items; one that is there goes on."""
        self._over.set()
        if self._running is not None and not self.busy:
            self._running.cancel()

    async def left(self) -> None:
        """Return once the item that was there is over, and its stream is."""
        if self._running is not None:
            await asyncio.wait((self._running,))
        await self._tasks.settle(LEAVE_S)

    async def aclose(self) -> None:
        """Stop, whatever is under way."""
        self._over.set()
        await self._tasks.aclose()

    async def _run(self) -> None:
        while not self._over.is_set():
            await self._place.ready.wait()
            connection = await self._place.link.connection()
            if not (self._primary or await self._place.admission.granted()):
                await pause(ADMISSION_S, self._over, self._place.clock, self._tasks)
            elif self._place.ready.is_set():
                await self._serve(connection)

    async def _serve(self, connection: Connection) -> None:
        """Hold one stream open, and wait before the next if that is called for."""
        place, began = self._place, self._place.clock.monotonic()
        stream = self._stream = WorkStream(place, self._tasks, primary=self._primary)
        try:
            why = await stream.run(connection)
        finally:
            self._stream = None
        if stream.worked or place.clock.monotonic() - began >= STEADY_S:
            self._quick = 0
            self._backoff.reset()
        if stream.worked:
            return
        self._quick += 1
        if why:
            place.link.say(why)
        if (why or self._quick > QUICK) and place.ready.is_set():
            await pause(self._backoff.next_s(), self._over, place.clock, self._tasks)
