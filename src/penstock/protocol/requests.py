"""What clients ask for, as it stands on the wire: HTTP bodies and WebSocket messages (WIRE.md section 3).

Keys that a message does not name are ignored, as clients of the protocol may send more.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.depth import check_depth
from penstock.protocol.messages import MAX_TASK_ID, Form, OnDisconnect, Route, Start

TaskName = Annotated[str, msgspec.Meta(max_length=MAX_TASK_ID)]  # longer ones are not even sent back
MAX_NAME = 256  # characters
Name = Annotated[
    str, msgspec.Meta(max_length=MAX_NAME)
]  # of a command or workflow: an unknown one is compared


class CallBody(msgspec.Struct, frozen=True, kw_only=True):
    """What every request to run something may carry."""

    input: msgspec.Raw = msgspec.Raw(b"{}")
    output_config: dict[str, Any] | None = None
    is_stream: bool | None = None
    task_id: str | None = None
    notes: bool | None = None
    on_disconnect: Any = None
    timeout: float | None = None
    route: Route | None = None

    def start(
        self,
        form: Form,
        *,
        command: str = "",
        workflow_id: str | None = None,
        stream: bool = False,
        timeout_s: float | None = None,
        more_input: bool = False,
    ) -> Start:
        """Return the request.

        Args:
            form: The protocol version it is answered in.
            command: What runs; empty for the dispatcher's default.
            workflow_id: The workflow that runs, if it is one.
            stream: What ``is_stream`` is where the body does not say.
            timeout_s: The budget where the body does not say.
            more_input: Items for a command that takes a stream may follow.

        Raises:
            CallError: ``invalid_argument``.
        """
        given = bytes(self.input)
        return Start(
            command=command,
            workflow_id=workflow_id,
            input=b"{}" if given == b"null" else given,
            form=form,
            task_id=self.task_id,
            output_config=self.output_config or {},
            is_stream=stream if self.is_stream is None else self.is_stream,
            notes=bool(self.notes),
            on_disconnect=None if self.on_disconnect is None else OnDisconnect.parse(self.on_disconnect),
            timeout_s=timeout_s if self.timeout is None else self.timeout,
            more_input=more_input,
            route=self.route,
        )


class CommandBody(CallBody, frozen=True, kw_only=True):
    """The body of `/v2/execute`."""

    command: Name | None = None

    def named(self) -> str:
        """Return the command.

        Raises:
            CallError: ``invalid_argument``; there is none.
        """
        if not self.command:
            raise _missing("command")
        return self.command


class WorkflowBody(CallBody, frozen=True, kw_only=True):
    """The body of `/v2/workflow`."""

    workflow_id: Name | None = None

    def named(self) -> str:
        """Return the workflow.

        Raises:
            CallError: ``invalid_argument``; there is none.
        """
        if not self.workflow_id:
            raise _missing("workflow_id")
        return self.workflow_id


class TaskMessage(CallBody, frozen=True, kw_only=True, tag_field="type", tag="task"):
    """Run the default command, in V1.

    ``correlation_id`` stands for the header X-Request-Id; ``more_input`` false says that no ``input``
    messages follow.
    """

    correlation_id: str | None = None
    more_input: bool = True


class CommandMessage(CommandBody, frozen=True, kw_only=True, tag_field="type", tag="command"):
    """Run a command, in V2."""

    correlation_id: str | None = None
    more_input: bool = True


class WorkflowMessage(WorkflowBody, frozen=True, kw_only=True, tag_field="type", tag="workflow"):
    """Run a workflow."""

    correlation_id: str | None = None


class CancelMessage(msgspec.Struct, frozen=True, tag_field="type", tag="cancel"):
    """Cancel a call by its task id."""

    task_id: TaskName


class ResumeMessage(msgspec.Struct, frozen=True, tag_field="type", tag="resume"):
    """Read a call again, behind frame number ``after``."""

    task_id: TaskName
    after: int = -1


class DetachMessage(msgspec.Struct, frozen=True, tag_field="type", tag="detach"):
    """Read a call no longer on this socket; answered with ``detached`` behind the last of its frames."""

    task_id: TaskName


class InputMessage(msgspec.Struct, frozen=True, tag_field="type", tag="input"):
    """One item for a call whose command takes a stream."""

    task_id: TaskName
    data: msgspec.Raw


class InputEndMessage(msgspec.Struct, frozen=True, tag_field="type", tag="input_end"):
    """No more items come for this call."""

    task_id: TaskName


class PingMessage(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Answered by a pong."""


Message = (
    TaskMessage
    | CommandMessage
    | WorkflowMessage
    | CancelMessage
    | ResumeMessage
    | DetachMessage
    | InputMessage
    | InputEndMessage
    | PingMessage
)

_FAULTS = (msgspec.MsgspecError, UnicodeError, RecursionError)
_decode_default = msgspec.json.Decoder(CallBody).decode
_decode_body = msgspec.json.Decoder(CommandBody).decode
_decode_workflow = msgspec.json.Decoder(WorkflowBody).decode
_decode_message = msgspec.json.Decoder(Message).decode


_SHOWN = 300  # characters of a fault that are told: it may quote what was sent


class _Named(msgspec.Struct):
    task_id: TaskName | None = None


def read_default_body(body: bytes) -> CallBody:
    """Read the HTTP body of a request to run the default command; a `command` in it is as good as any key
    that is ignored.

    Raises:
        CallError: ``invalid_argument`` or ``too_large``.
    """
    check_depth(body)
    try:
        return _decode_default(body)
    except _FAULTS as error:
        raise _unreadable(error) from error


def read_body(body: bytes) -> CommandBody:
    """Read the HTTP body of a request to run a command.

    Raises:
        CallError: ``invalid_argument`` or ``too_large``.
    """
    check_depth(body)
    try:
        return _decode_body(body)
    except _FAULTS as error:
        raise _unreadable(error) from error


def read_workflow_body(body: bytes) -> WorkflowBody:
    """Read the HTTP body of a request to run a workflow.

    Raises:
        CallError: ``invalid_argument`` or ``too_large``.
    """
    check_depth(body)
    try:
        return _decode_workflow(body)
    except _FAULTS as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> CallError:
    return CallError(f"the body is not a request: {_shortened(error)}", ErrorCode.INVALID_ARGUMENT)


class BadMessage(CallError):
    """A message that cannot be read; ``task_id`` is the call it named, where it named one."""

    def __init__(self, message: str, task_id: str | None) -> None:
        super().__init__(message, ErrorCode.INVALID_ARGUMENT)
        self.task_id = task_id


def read_message(text: bytes | str) -> Message:
    """Read a WebSocket message.

    Raises:
        BadMessage: It is none of ours.
        CallError: ``too_large``.
    """
    check_depth(text)
    try:
        message: Message = _decode_message(text)
    except _FAULTS as error:
        raise BadMessage(f"not a message of this protocol: {_shortened(error)}", _task_named(text)) from error
    return message


def _task_named(text: bytes | str) -> str | None:
    try:
        return msgspec.json.decode(text, type=_Named).task_id
    except _FAULTS:
        return None


def _shortened(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _missing(name: str) -> CallError:
    return CallError(
        f"{name}: field required",
        ErrorCode.INVALID_ARGUMENT,
        details=[{"path": [name], "reason": "missing"}],
    )
