"""Requests and frames as they stand on the wire (WIRE.md sections 1 and 2).

One frame is one JSON object, written once per call in the form (v1 or v2) of the request that opened it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal, Protocol

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.values import encode_value

MAX_TASK_ID = 128  # characters
TASK_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}\Z")
MAX_TIMEOUT_S = 7 * 24 * 3600.0
MAX_ROUTE_LABELS = 32
RouteText = Annotated[str, msgspec.Meta(max_length=256)]


class WireForm(str, Enum):
    """Which protocol version a call speaks; v1 frames carry no ``version`` and no ``command``."""

    V1 = "v1"
    V2 = "v2"

    def writer(self, command: str, task_id: str, request_id: str) -> FrameWriter:
        """See ``Form.writer``."""
        return FrameWriter(self, command, task_id, request_id)

    def data_of(self, line: bytes) -> msgspec.Raw | None:
        """See ``Form.data_of``."""
        frame = _decode_data(line)
        return None if frame.status == "progress" or not bytes(frame.data) else frame.data


class Form(Protocol):
    """How the frames of a call are written; the form is that of the request that opened it."""

    def writer(self, command: str, task_id: str, request_id: str) -> FrameWriter:
        """Return what writes them."""
        ...

    def data_of(self, line: bytes) -> msgspec.Raw | None:
        """Return the item or answer that a frame holds, as JSON; None where there is none."""
        ...


class CancelReason(str, Enum):
    """Why a call is cut short; the first reason stays."""

    CALLER = "caller"
    DISCONNECT = "disconnect"
    DEADLINE = "deadline"
    DRAIN = "drain"
    RUNNER_LOST = "runner_lost"


class OnDisconnect(msgspec.Struct, frozen=True):
    """What happens to a call when its last reader has gone: on the wire ``"cancel"``, ``"continue"`` or
    ``{"grace_s": 30}``.  ``grace_s`` is in seconds; 0 cancels at once, None lets the call run on."""

    grace_s: float | None = 0.0

    def __post_init__(self) -> None:
        if self.grace_s is not None and not 0 <= self.grace_s <= MAX_TIMEOUT_S:
            raise CallError("on_disconnect.grace_s is not between 0 and 7 days", ErrorCode.INVALID_ARGUMENT)

    @classmethod
    def parse(cls, value: object) -> OnDisconnect:
        """Read the wire form.

        Raises:
            CallError: ``invalid_argument``.
        """
        if value in ("cancel", "continue"):
            return cls(0.0 if value == "cancel" else None)
        if isinstance(value, dict) and set(value) == {"grace_s"} and _is_number(value["grace_s"]):
            return cls(value["grace_s"])
        raise CallError(
            'on_disconnect is "cancel", "continue" or {"grace_s": seconds}',
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["on_disconnect"], "reason": "invalid"}],
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Route(msgspec.Struct, frozen=True):
    """Which runner of a gateway a call is for; elsewhere it means nothing.

    Attributes:
        labels: It has all of these.
        sticky: Calls with the same text go to the same one, while it has room.
    """

    labels: Annotated[dict[RouteText, RouteText], msgspec.Meta(max_length=MAX_ROUTE_LABELS)] = {}
    sticky: RouteText | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request to run one command, or the workflow that ``workflow_id`` names, once.

    An empty ``command`` is the dispatcher's default one; without ``on_disconnect`` what runs decides;
    ``input`` is the JSON text of an object, so that
    every way in is validated alike; ``timeout_s`` is the whole call's budget in seconds; ``more_input`` says
    that items for a command that takes a stream follow in messages of their own; ``route`` is for gateways.

    Raises:
        CallError: ``invalid_argument`` for an ill-formed ``task_id`` or ``timeout_s``.
    """

    command: str = ""
    workflow_id: str | None = None
    input: bytes = b"{}"
    form: Form = WireForm.V2
    task_id: str | None = None
    output_config: Mapping[str, Any] = {}
    is_stream: bool = False
    notes: bool = False
    on_disconnect: OnDisconnect | None = None
    timeout_s: float | None = None
    more_input: bool = False
    route: Route | None = None

    def __post_init__(self) -> None:
        if self.task_id is not None and not TASK_ID.match(self.task_id):
            raise CallError(
                "task_id is 1 to 128 letters, digits, '_', '.', ':' or '-', the first a letter, digit or '_'",
                ErrorCode.INVALID_ARGUMENT,
                details=[{"path": ["task_id"], "reason": "pattern"}],
            )
        if self.timeout_s is not None and not 0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise CallError(
                "timeout is more than 0 and at most 604800 seconds",
                ErrorCode.INVALID_ARGUMENT,
                details=[{"path": ["timeout"], "reason": "range"}],
            )

    @property
    def target(self) -> str:
        """The name of what is to run."""
        return self.command if self.workflow_id is None else self.workflow_id


class CancelTimes(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a cancel reached its stages (Unix seconds): it was asked for, the author's code felt it, that code
    has left, the engine below has confirmed its end, the permit is free."""

    requested_at: float
    delivered_at: float | None = None
    acknowledged_at: float | None = None
    upstream_confirmed_at: float | None = None
    freed_at: float | None = None


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A frame as a reader sees it; what a frame does not carry is ``None`` (``data``: UNSET)."""

    type: str
    status: str
    data: Any = msgspec.UNSET
    error: str | None = None
    timestamp: float = 0.0
    version: str | None = None
    command: str | None = None
    workflow_id: str | None = None
    step: str | None = None
    task_id: str | None = None
    seq: int | None = None
    request_id: str | None = None
    code: str | None = None
    retryable: bool | None = None
    details: Sequence[Mapping[str, Any]] = ()
    retry_after_s: float | None = None
    reason: str | None = None
    cancel: CancelTimes | None = None
    position: int | None = None
    first_seq: int | None = None
    metrics: Mapping[str, Any] | None = None


class _Data(msgspec.Struct):
    status: str
    data: msgspec.Raw = msgspec.Raw()


Note = Literal["queued", "progress"]

_encode = msgspec.json.Encoder().encode
_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_data = msgspec.json.Decoder(_Data).decode


def decode_frame(line: bytes | str) -> Frame:
    """Read one frame.

    Raises:
        CallError: ``invalid_argument`` when it is not one.
    """
    try:
        return _decode_frame(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CallError(f"not a frame: {error}", ErrorCode.INVALID_ARGUMENT) from error


class FrameWriter:
    """Writes the frames of one call.

    Args:
        form: v1 or v2, from the request that opened the call.
        command: Name of the command; shown in v2 only.
        task_id: The caller's name for the call.
        request_id: Ours, 32 hex digits; shown in the first frame only.
    """

    __slots__ = ("_now", "_request_id", "_stamp", "_tail")

    def __init__(self, form: WireForm, command: str, task_id: str, request_id: str) -> None:
        self._tail = b'%b,"task_id":%b,"seq":' % (_identity(form, command), _encode(task_id))
        self._request_id = request_id
        self._now = 0.0
        self._stamp = b',"timestamp":0.0'

    # What is written for every token and for every call is joined from prepared parts.

    def item(self, data: object, seq: int, now: float) -> bytes:
        """Write a ``streaming`` frame."""
        value = encode_value(data)
        # The wire shows milliseconds, so a stamp serves every frame of its millisecond.
        if now - self._now >= 0.001:
            self._tick(now)
        end = _ENDS[seq] if seq < _MANY else b"%d}" % seq
        return b"".join((_ITEM_HEAD, value, self._stamp, self._tail, end))

    def accepted(self, seq: int, now: float) -> bytes:
        """Write the first frame."""
        self._tick(now)
        identity = b'%d,"request_id":%b}' % (seq, _encode(self._request_id))
        return b"".join((_ACCEPTED, self._stamp, self._tail, identity))

    def completed(self, answer: bytes | None, metrics: Mapping[str, Any], seq: int, now: float) -> bytes:
        """Write the end of a call that did what it was asked; ``answer`` is JSON, None ends a stream."""
        if now > self._now:
            self._tick(now)
        data = b"" if answer is None else b',"data":' + answer
        end = b'%d,"metrics":%b}' % (seq, _encode(metrics)) if metrics else b"%d}" % seq
        return b"".join((_COMPLETED, data, self._stamp, self._tail, end))

    def note(self, kind: Note, about: Mapping[str, Any], seq: int, now: float) -> bytes:
        """Write ``queued`` (``{"position": n}``) or ``progress`` (its data)."""
        if kind == "queued":
            return self._frame(kind, {}, seq, now, about)
        return self._frame(kind, {"data": about}, seq, now, {})

    def error(self, error: CallError, seq: int, now: float) -> bytes:
        """Write the end of a call that failed."""
        return self._frame("error", {"error": error.message}, seq, now, error_fields(error))

    def cancelled(self, reason: CancelReason, times: CancelTimes, seq: int, now: float) -> bytes:
        """Write the end of a call that was cancelled."""
        return self._frame("cancelled", {}, seq, now, {"reason": reason.value, "cancel": times})

    def _frame(
        self, status: str, head: Mapping[str, Any], seq: int, now: float, tail: Mapping[str, Any]
    ) -> bytes:
        if now > self._now:
            self._tick(now)
        return self._joined(status, head, self._tail, seq, tail)

    def _joined(
        self, status: str, head: Mapping[str, Any], identity: bytes, seq: int, tail: Mapping[str, Any]
    ) -> bytes:
        begin = _encode({"type": "task", "status": status, **head})[:-1]
        end = b"," + _encode(tail)[1:] if tail else b"}"
        return b"".join((begin, self._stamp, identity, b"%d" % seq, end))

    def _tick(self, now: float) -> None:
        self._now = max(self._now, round(now, 3))
        self._stamp = b',"timestamp":' + _encode(self._now)


_ITEM_HEAD = b'{"type":"task","status":"streaming","data":'
_MANY = 4096  # items of most streams
_ENDS = tuple(b"%d}" % seq for seq in range(_MANY))
_ACCEPTED = b'{"type":"task","status":"accepted"'
_COMPLETED = b'{"type":"task","status":"completed"'


@lru_cache(maxsize=256)
def _identity(form: WireForm, command: str) -> bytes:
    """Return what every frame of a command's calls says between its time and its task."""
    return b"" if form is WireForm.V1 else b',"version":"v2","command":' + _encode(command)


def error_fields(error: CallError) -> dict[str, Any]:
    """Return what an error says to a program, in wire order; details that are no JSON are left out, as
    the error itself must always reach its caller."""
    fields: dict[str, Any] = {"code": error.code.value, "retryable": error.retryable}
    if error.details:
        with suppress(CallError):
            fields["details"] = msgspec.Raw(encode_value(error.details))
    if error.retry_after_s is not None:
        fields["retry_after_s"] = error.retry_after_s
    first_seq = getattr(error, "first_seq", None)
    if first_seq is not None:
        fields["first_seq"] = first_seq
    return fields


def error_envelope(error: CallError, now: float, **more: Any) -> bytes:
    """Write an error that belongs to no call: a refusal at admission, an unknown task, a bad message."""
    head = {"type": "task", "status": "error", "error": error.message, "timestamp": round(now, 3)}
    return _encode({**head, **{k: v for k, v in more.items() if v is not None}, **error_fields(error)})
