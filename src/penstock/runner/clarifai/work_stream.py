"""One stream for work: a hello, at most one item, its outputs, and the end of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from penstock.calls.clock import Clock, Timer
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.statuses import lost as failed_status
from penstock.protocol.messages import CancelReason
from penstock.runner.clarifai.admission import Admission
from penstock.runner.clarifai.annotation_tasks import AnnotationTasks
from penstock.runner.clarifai.conversation import (
    Again,
    Annotate,
    Cancelled,
    Conversation,
    EndOfInput,
    More,
    Passed,
    Refused,
    Step,
    Unwelcome,
    Work,
    Wrong,
)
from penstock.runner.clarifai.identity import Identity
from penstock.runner.clarifai.item import Item, Response, Workshop
from penstock.runner.clarifai.items import Items
from penstock.runner.clarifai.link import Connection, Link
from penstock.runner.clarifai.wire import Stream, StreamLost

LINGER_S = 10.0  # how long a server may take to end a stream on which nothing more comes

_log = logging.getLogger("penstock.runner")


@dataclass(frozen=True)
class Place:
    """What the streams of a runner share.

    Attributes:
        chance: A number from 0 to 1, for the waits between attempts.
        ready: Set while the app can take calls.
        admission: Says whether more work is wanted.
        annotations: Does tasks of annotation; None: they are refused.
    """

    link: Link
    identity: Identity
    items: Items
    workshop: Workshop
    clock: Clock
    chance: Callable[[], float]
    ready: asyncio.Event
    admission: Admission
    annotations: AnnotationTasks | None = None


class WorkStream:
    """A stream, from its opening until another one may be opened in its place.

    Args:
        place: What it shares with others.
        tasks: Owns what reads and what works.
        primary: Whether it says that it is the one for tasks of annotation.
    """

    def __init__(self, place: Place, tasks: TaskOwner, *, primary: bool = False) -> None:
        self._place = place
        self._tasks = tasks
        self._primary = primary and place.annotations is not None
        self._conversation = Conversation(annotates=place.annotations is not None)
        self._stream: Stream | None = None
        self._item: Item | None = None
        self._linger: Timer | None = None
        self._free = asyncio.Event()
        self._why = ""
        self._ended = self._ended_here = False
        self._told = False  # of what was passed over
        self.open = False
        """Whether an item may come on it."""
        self.worked = False
        """Whether one has come."""

    async def run(self, connection: Connection) -> str:
        """Hold it open; returns when its item is over and has stopped, or when none comes.

        Returns:
            Why the next one is to wait, in words; empty if it need not.
        """
        self._tasks.start(self._hold(connection), name="stream")
        try:
            await self._free.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self._why

    def cancel(self) -> None:
        """End it now."""
        self._ended_here = True
        self._conversation.finish()
        if self._stream is not None:
            self._stream.cancel()

    # -- what comes ----------------------------------------------------------------------------------

    async def _hold(self, connection: Connection) -> None:
        try:
            with connection.stream(primary=self._primary) as stream:
                self._stream = stream
                await self._listen(stream)
        except StreamLost as lost:
            self._why = "" if self._ended_here else lost.why
        except Exception:  # noqa: BLE001 - the top of a stream: whatever breaks, another one is opened
            _log.exception("a stream failed")
            self._why = "a fault of the runner"
        finally:
            self.open, self._ended = False, True
            self._conversation.finish()
            if self._linger is not None:
                self._linger.cancel()
            if self._item is None:
                self._free.set()
            else:
                self._item.cancel(CancelReason.DISCONNECT)  # nothing, if it is over

    async def _listen(self, stream: Stream) -> None:
        annotations = self._place.annotations if self._primary else None
        await stream.send(self._place.identity.hello(() if annotations is None else annotations.ids))
        self.open = True
        while (message := await stream.receive()) is not None:
            self._place.link.heard()
            for step in self._conversation.heard(message):
                if isinstance(step, (Again, Unwelcome)):
                    self._why = step.why if isinstance(step, Unwelcome) else ""
                    return
                await self._act(stream, step)
            self.open = self._conversation.waiting

    async def _act(self, stream: Stream, step: Step) -> None:
        item = self._item
        if isinstance(step, Work):
            await self._begin(stream, step)
        elif isinstance(step, Annotate):
            await self._annotate(stream, step)
        elif isinstance(step, Refused):
            await self._refuse(stream, step)
        elif isinstance(step, Passed):
            self._pass_over(step)
        elif item is None:
            return
        elif isinstance(step, More):
            await item.take(step.request)
        elif isinstance(step, EndOfInput):
            item.end_input()
        elif isinstance(step, Cancelled):
            item.cancel(CancelReason.CALLER)
        elif isinstance(step, Wrong):
            item.fail(CallError(step.why, ErrorCode.INVALID_ARGUMENT))

    # -- what is done --------------------------------------------------------------------------------

    async def _begin(self, stream: Stream, work: Work) -> None:
        items, item_id = self._place.items, work.item.id
        if item_id in items:
            self._conversation.finish()
            await self._refuse(stream, Refused(item_id, f"item {item_id} is being processed already"))
            return
        self.worked = True
        item = self._item = Item(self._place.workshop, work)
        items.add(item)
        item.begin()
        self._tasks.start(self._process(stream, item), name=f"item {item_id}")

    async def _annotate(self, stream: Stream, step: Annotate) -> None:
        assert self._place.annotations is not None
        self.worked = True
        response = self._place.annotations.begin(step.item)
        if response is not None:
            await self._tell(stream, step.item.id, response)
        await stream.half_close()
        self._finish(stream)
        self._free.set()

    def _pass_over(self, passed: Passed) -> None:
        """Log the first message that nothing is done with: a server may send any number of them."""
        if not self._told:
            self._told = True
            _log.warning("the server's message is passed over: %s", passed.why)

    async def _refuse(self, stream: Stream, refused: Refused) -> None:
        _log.warning("an item cannot be processed: %s", refused.why)
        self.worked = True
        await self._tell_failure(stream, refused)
        self._finish(stream)
        self._free.set()

    async def _process(self, stream: Stream, item: Item) -> None:
        try:
            try:
                await item.run(partial(self._tell, stream, item.item_id))
                await stream.half_close()
            except StreamLost as lost:
                _log.info("the stream of item %s has ended: %s", item.item_id, lost.why)
            except Exception:  # noqa: BLE001 - the top of an item: its server is told that it failed
                _log.exception("item %s cannot be processed", item.item_id)
                with suppress(StreamLost):
                    await self._tell_failure(
                        stream, Refused(item.item_id, "a fault of the runner; see its log")
                    )
            self._finish(stream)
            await item.stopped()
        finally:
            item.cancel(CancelReason.DISCONNECT)
            self._place.items.discard(item)
            self._free.set()

    async def _tell(self, stream: Stream, item_id: str, response: Response) -> None:
        await stream.send(self._place.identity.output(item_id, response))

    async def _tell_failure(self, stream: Stream, refused: Refused) -> None:
        status = failed_status(CallError(refused.why, ErrorCode.INVALID_ARGUMENT))
        response = Response(status=status)
        await stream.send(self._place.identity.output(refused.item_id, response, status))
        await stream.half_close()

    def _finish(self, stream: Stream) -> None:
        """Leave it to the server to end the stream, for a while."""
        self._conversation.finish()
        if not self._ended:
            self._linger = self._place.clock.call_later(LINGER_S, stream.cancel)
