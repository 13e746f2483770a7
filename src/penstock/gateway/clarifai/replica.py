"""A replica: one process of a Clarifai runner, with its data streams and its control stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.calls.clock import Clock
from penstock.calls.ids import new_id
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.annotation_form import AnnotationForm
from penstock.gateway.clarifai.assignments import Assignments
from penstock.gateway.clarifai.forms import Form
from penstock.gateway.clarifai.hello import Hello, ReplicaId
from penstock.gateway.clarifai.lanes import Item, Lane, Line
from penstock.gateway.clarifai.opens import OpenRate
from penstock.gateway.clarifai.places import Places
from penstock.gateway.clarifai.replica_tasks import ReplicaTasks
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.clarifai.sinks import Answer, CallSink
from penstock.gateway.clarifai.streams import Finished, Phase, cancel_of
from penstock.gateway.runner import Identity, Parting, Runner, Watcher
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.clarifai.statuses import status_of
from penstock.protocol.messages import CancelReason
from penstock.protocol.runners import Offer
from penstock.protocol.session import Cancel, Credit, End, Failure, Input, InputEnd, Items, Message, Open

SETTLE_S = 0.1  # after which no more threads are waited for; they start 20 ms apart
SETTLE_TIMES = 100
LINGER_S = 30.0  # how long a replica may keep a stream open whose item is over

_log = logging.getLogger("penstock.gateway")


@dataclass
class _Waiting:
    """A call whose place has gone, until there is another."""

    item: Item
    inputs: list[Input | InputEnd] = field(default_factory=list)


class Replica(Runner):
    """Runs each call as an item on a data stream of its own.

    Args:
        hello: Its first.
        labels: Of what it serves.
        settings: Times of every runner.
        link: Those of this link.
        clock: Tells the time.
        watcher: Is told what becomes of it.
        room: Told when a place is free.
        still_welcome: Whether what let it in would still let it in.
        forget: Told when it is gone.
        assignments: The tasks of annotation of all replicas.
    """

    def __init__(
        self,
        hello: Hello,
        labels: Mapping[str, str],
        settings: GatewaySettings,
        link: LinkSettings,
        clock: Clock,
        watcher: Watcher,
        room: Callable[[], None],
        still_welcome: Callable[[], bool],
        forget: Callable[[Replica], None],
        assignments: Assignments,
    ) -> None:
        who = hello.who
        identity = Identity(who.name, "", who.key, hello.software, {**who.labels(), **labels})
        super().__init__(identity, {}, 1, clock, watcher)
        self.who: ReplicaId = who
        self.primaries = 0
        """Data streams of its main thread that it has opened; only such a thread takes annotation tasks."""
        self.opens = OpenRate()
        """How often it may open streams."""
        self.introduced = False
        """Whether it was asked, at least, what it runs."""
        self.removed = False
        """Whether it was sent away for good."""
        self._forms: Mapping[str, Form] = {}
        self._settings = settings
        self._link = link
        self._room = room
        self._still_welcome = still_welcome
        self._forget_me = forget
        self.tasks = ReplicaTasks(self, assignments, clock, self._began)
        """Of annotation."""
        self._places = Places(clock, self._changed_places)
        self._running: dict[str, Lane] = {}  # by the call's id
        self._waiting: dict[str, _Waiting] = {}  # ... those without a stream
        self._reasons: dict[str, CancelReason] = {}  # ... of those that were cancelled
        self._controls: list[Line] = []
        self._timer = clock.call_later(settings.heartbeat_s, self._beat)
        self._away_since = clock.monotonic()

    # -- what it is ----------------------------------------------------------------------------------

    def has_room(self, command: str) -> bool:
        """See ``Runner.has_room``; places that were given and not used yet take a stream each."""
        return self.load - self.calls < self._places.free and super().has_room(command)

    def introduce(self, offers: Mapping[str, Offer], forms: Mapping[str, Form]) -> None:
        """Say what it runs, before it is taken in.

        Args:
            forms: How each of these commands speaks.
        """
        self.offers, self._forms = offers, forms

    def come(self) -> None:
        """It was taken in, and may be given calls."""
        self.confirmed = True
        self._watcher.changed(self)

    async def settle(self) -> None:
        """Return once all of its threads have opened their streams, one shortly after the other."""
        for _ in range(SETTLE_TIMES):
            opened, settled = self._places.opened, asyncio.Event()
            self._clock.call_later(SETTLE_S, settled.set)
            await settled.wait()
            if self._places.opened == opened:
                break

    async def check(self, command: str, text: bytes) -> CallError | None:
        """See ``Runner.check``."""
        try:
            self._forms[command].open(text)
        except CallError as error:
            return error
        return None

    # -- streams -------------------------------------------------------------------------------------

    def open_lane(self, line: Line, *, primary: bool = False) -> Lane:
        """It has opened a data stream."""
        lane = Lane(self, line, primary=primary)
        self.primaries += primary
        self._places.open(lane)
        return lane

    def open_control(self, line: Line) -> None:
        """It has opened a control stream."""
        self._controls.append(line)

    def close_control(self, line: Line) -> None:
        """A control stream has ended."""
        if line in self._controls:
            self._controls.remove(line)
            self._changed_places()

    # -- calls ---------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """See ``Runner.send``.

        Raises:
            CallError: ``invalid_argument``: the input of a call that opens is not what its command takes.
        """
        if isinstance(message, Open):
            self._open(message)
        elif isinstance(message, Cancel):
            self._cancel(message)
        elif isinstance(message, (Input, InputEnd)):
            if (lane := self._running.get(message.request_id)) is not None:
                _feed(lane, message)
            elif message.request_id in self._waiting:
                self._waiting[message.request_id].inputs.append(message)
        elif isinstance(message, Credit):
            self.tasks.credit(message.request_id, message.size)
            if (lane := self._running.get(message.request_id)) is not None:
                lane.credit(message.size)

    def _open(self, opening: Open) -> None:
        form = self._forms[opening.command]
        if isinstance(form, AnnotationForm):
            self._start(self.tasks.assign(opening, form))
            return
        sink = CallSink(self, opening.request_id)
        requests = form.open(opening.input)
        self._start(Item(form, opening.input, requests, opening.request_id, opening.window, sink))

    def _began(self, request_id: str) -> None:
        self._running.pop(request_id, None)
        self._changed_places()

    def _start(self, item: Item) -> None:
        lane = self._places.take(primary=item.primary)
        if lane is not None:
            self._begin(lane, item)
        else:
            self._waiting[item.request_id] = _Waiting(item)

    def _begin(self, lane: Lane, item: Item) -> None:
        self._running[item.request_id] = lane
        lane.begin(item)

    def _cancel(self, message: Cancel) -> None:
        if message.request_id in self._waiting:
            del self._waiting[message.request_id]
            self.end_call(message.request_id, End(request_id=message.request_id, reason=message.reason))
            return
        if self.tasks.cancel(message.request_id):
            self.end_call(message.request_id, End(request_id=message.request_id, reason=message.reason))
            return
        lane = self._running.get(message.request_id)
        if lane is not None:
            self._reasons[message.request_id] = message.reason
            if lane.cancel():
                self._places.cancel(lane)
                close = partial(lane.close, "its item was cancelled")
                self._clock.call_later(self._link.cancel_s, close)

    async def ask(self, form: Form, text: bytes, wait_s: float) -> bytes:
        """Return what it answers to a question of the gateway's own.

        Raises:
            CallError: It fails, or has no answer in time.
        """
        request_id = new_id()
        answer: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        sink = Answer(answer, partial(self._let_go, request_id))
        self._start(Item(form, text, form.open(text), request_id, len(text), sink))
        await asyncio.wait((answer,), timeout=wait_s)
        if not answer.done():
            self._cancel(Cancel(request_id=request_id, reason=CancelReason.DEADLINE))
            raise CallError(f"no answer within {wait_s:g} s", ErrorCode.DEADLINE_EXCEEDED)
        how = answer.result()
        if how.error is not None:
            raise how.error
        return how.answer or b""

    # -- for its calls -------------------------------------------------------------------------------

    def output_of(self, request_id: str, text: bytes) -> None:
        """An item of a call has come."""
        call = self._calls.get(request_id)
        if call is not None:
            call.heard(Items(request_id=request_id, items=[text]))

    def finish(self, request_id: str, how: Finished) -> None:
        """A call has ended."""
        reason = self._reasons.get(request_id, CancelReason.CALLER) if how.cut else None
        error = None if how.error is None or how.cut else Failure.of(how.error)
        self.end_call(request_id, End(request_id=request_id, answer=how.answer, error=error, reason=reason))

    def end_call(self, request_id: str, end: End) -> None:
        """Tell a call how it ended."""
        self._let_go(request_id)
        call = self._calls.get(request_id)
        if call is not None:  # else it runs elsewhere by now
            self._forget(request_id)
            call.heard(end)

    def lose_call(self, request_id: str, why: str) -> None:
        """The replica left a call."""
        self._let_go(request_id)
        if request_id in self._calls:
            self._lose_call(request_id, why)

    def _let_go(self, request_id: str) -> None:
        self._running.pop(request_id, None)
        self._reasons.pop(request_id, None)
        if self.tasks.forget(request_id):
            self._changed_places()

    def _forget(self, request_id: str) -> None:
        super()._forget(request_id)
        self._let_go(request_id)

    # -- for its lanes -------------------------------------------------------------------------------

    def now(self) -> float:
        """See ``Owner.now``."""
        return self._clock.monotonic()

    def send_cancel(self, item_id: str) -> bool:
        """See ``Owner.send_cancel``; of several control streams some may be dead already."""
        if item_id:
            told = cancel_of(item_id)
            for line in self._controls:
                line.send(told)
        return bool(self._controls)

    def lane_free(self, lane: Lane) -> None:
        """See ``Owner.lane_free``."""
        self._places.leave(lane)

    def lane_over(self, lane: Lane, *, comes_again: bool) -> None:
        """See ``Owner.lane_over``."""
        if comes_again or lane.used:
            self.opens.give_back()
        self._places.close(lane, comes_again=comes_again)

    # -- its end -------------------------------------------------------------------------------------

    def refuse(self, error: CallError) -> None:
        """It is not taken in, or no longer wanted: every stream of it is told why."""
        status = status_of(error)
        for lane in self._places:
            lane.refuse(status)
        self.drop("it was refused")

    def drop(self, why: str) -> None:
        """Forget it: it was never taken in."""
        if not self.confirmed and not self.gone:
            self.gone = True
            self._part(why, Parting.LEFT)

    def _part(self, why: str, parting: Parting) -> None:
        self._timer.cancel()
        self._waiting.clear()
        self.tasks.drop()
        self.removed = parting is Parting.REMOVED
        self._forget_me(self)
        for lane in self._places:
            if lane.stream.phase is Phase.BUSY:
                self.send_cancel(lane.stream.item_id)
            if parting is Parting.REMOVED:
                lane.refuse(status_pb2.Status(code=codes.RUNNER_DOES_NOT_EXIST, details=why))
            else:
                lane.close(why)
        for line in tuple(self._controls):
            line.end()
        self._controls.clear()

    # -- inside --------------------------------------------------------------------------------------

    def _changed_places(self) -> None:
        if self.gone:
            return
        capacity = self._places.capacity + self.tasks.begun
        there = self._places.any or bool(self._controls)
        if there != (self._away_since is None):
            self._away_since = None if there else self.now()
            if not there and self.confirmed:
                _log.warning("runner %s is away; %d calls wait for it", self.name, self.calls)
        elif capacity == self.capacity:
            self._use_places()
            return
        self.capacity = capacity
        self._use_places()
        if self.confirmed:
            self._watcher.changed(self)

    def _use_places(self) -> None:
        """Have calls run that wait, first those that are here already."""
        for request_id, waiting in tuple(self._waiting.items()):
            lane = self._places.take(primary=waiting.item.primary)
            if lane is not None:
                del self._waiting[request_id]
                self._begin(lane, waiting.item)
                for message in waiting.inputs:
                    _feed(lane, message)
        if self._places.free and self.confirmed:
            self._room()

    def _beat(self) -> None:
        if not self._still_welcome():
            self.lose("its key is no longer good", Parting.REMOVED)
            return
        now = self.now()
        self._timer = self._clock.call_later(self._settings.heartbeat_s, self._beat)
        for lane in self._places:
            phase, age = lane.stream.phase, now - lane.since
            if phase is Phase.IDLE and age >= self._link.idle_s:
                lane.close("it had no item for long")
            elif phase is Phase.ENDED and age >= LINGER_S:
                lane.close("its item is over for long")
        self._places.expire()
        if self._away_since is not None and now - self._away_since >= self._settings.resume_s:
            why = f"it was away for {self._settings.resume_s:g} s"
            self.lose(why, Parting.AWAY) if self.confirmed else self.drop(why)


def _feed(lane: Lane, message: Input | InputEnd) -> None:
    if isinstance(message, Input):
        lane.input(message.item)
    else:
        lane.end_input()
