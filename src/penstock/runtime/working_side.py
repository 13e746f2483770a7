"""The side of a link that works: calls come in over it, and what they yield goes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.calls import ambient
from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode, ProtocolError
from penstock.kv.held import AskedPrefix, HeldPrefixes
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import CancelReason, OnDisconnect, Start
from penstock.protocol.session import (
    Cancel,
    Check,
    Checked,
    Credit,
    End,
    Failure,
    Input,
    InputEnd,
    Message,
    Open,
    read_object,
)
from penstock.runtime.app import App
from penstock.runtime.outgoing import Outgoing, Sender


class WorkingSide:
    """Runs the calls that come over one link in an app.

    Args:
        app: Runs them; it is started.
        sender: Takes what they yield.
        tasks: Owns what sends.
        max_item: Bytes that an item, or an answer, may have.
        held: Where engines note which prompts they hold.
    """

    def __init__(
        self, app: App, sender: Sender, tasks: TaskOwner, max_item: int, held: HeldPrefixes | None = None
    ) -> None:
        self._app = app
        self._sender = sender
        self._tasks = tasks
        self._max_item = max_item
        self._held = held
        self._calls: dict[str, Outgoing] = {}

    def __len__(self) -> int:
        """Calls whose end was not sent yet."""
        return len(self._calls)

    def heard(self, message: Message) -> None:
        """Act on a message about a call; what is about no call here is passed over, as it has ended."""
        if isinstance(message, Open):
            self._open(message)
        elif isinstance(message, Check):
            self._check(message)
        elif isinstance(message, (Credit, Cancel, Input, InputEnd)):
            call = self._calls.get(message.request_id)
            if call is None:
                return
            if isinstance(message, Credit):
                call.credit(message.size)
            elif isinstance(message, Cancel):
                call.cancel(message.reason)
            else:
                call.take_input(message.item if isinstance(message, Input) else None)

    def cancel_all(self, reason: CancelReason) -> None:
        """Cut every call short."""
        for call in tuple(self._calls.values()):
            call.cancel(reason)

    def _check(self, message: Check) -> None:
        error: Failure | None = None
        try:
            if message.workflow:
                self._app.check_workflow(message.workflow, message.input)
            else:
                self._app.check(message.command, message.input)
        except CallError as refusal:
            error = Failure.of(refusal)
        self._sender.send(Checked(number=message.number, error=error))

    def _open(self, message: Open) -> None:
        request_id = message.request_id
        if request_id in self._calls:
            return  # it runs; whoever asks twice gets one answer
        # Two callers may use one task id: each has a key of its own here.
        caller = Caller(
            key=request_id, correlation_id=message.correlation_id, trace_parent=message.trace_parent
        )
        try:
            with self._noting(message.input):
                live = self._app.accept(_start_of(message), caller, request_id)
        except (CallError, ProtocolError) as error:
            failure = Failure.of(error if isinstance(error, CallError) else _unreadable(error))
            self._sender.send(End(request_id=request_id, error=failure))
            return
        self._calls[request_id] = call = Outgoing(self._sender, live, message.window, self._max_item)
        if message.counts_input:
            call.count_input()
        self._tasks.start(self._run(live), name=f"send {request_id}")

    @contextmanager
    def _noting(self, text: bytes) -> Iterator[None]:
        """Have the engine that answers a call, whose task begins in here, note that it holds its prompt."""
        asked = None if self._held is None else AskedPrefix(self._held, text)
        token = ambient.asked_prefix.set(asked)
        try:
            yield
        finally:
            ambient.asked_prefix.reset(token)

    async def _run(self, live: Live) -> None:
        try:
            await self._calls[live.request_id].run()
        finally:
            del self._calls[live.request_id]
            self._app.forget(live)


def _unreadable(error: ProtocolError) -> CallError:
    return CallError(f"the call cannot be read: {error}", ErrorCode.INVALID_ARGUMENT)


def _start_of(message: Open) -> Start:
    left = message.remaining_s
    return Start(
        command=message.command,
        input=message.input,
        task_id=message.task_id,
        output_config=read_object(message.output_config),
        is_stream=True,
        notes=message.notes,
        on_disconnect=OnDisconnect(None),
        timeout_s=None if left is None else max(left, 0.001),
        more_input=message.more_input,
    )
