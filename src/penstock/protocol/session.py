"""Many calls on one link between two processes: bytes in, messages out, and back.

A message is a length of 4 bytes, most significant first, then msgpack.  What authors and callers say (inputs,
items, answers) travels as JSON text inside it, written once where it was made and read where it is shown.

The side that asks sends ``Configure``, ``Check``, ``Open``, ``Input``, ``InputEnd``, ``Cancel``, ``Credit``,
``Ping`` and ``Close``; the side that works sends ``Hello``, ``Checked``, ``Items``, ``Progress``, ``End``,
``Pong`` and, where it was asked to, ``Cached``.  Each call has exactly one ``End``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from penstock.errors import CallError, ErrorCode, LocalProtocolError, RemoteProtocolError
from penstock.protocol.events import EngineReport
from penstock.protocol.messages import CancelReason
from penstock.protocol.values import encode_value

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of a message: a request of the largest body, or an item, and what goes with it."""

HEAD = 4

MAX_NAMED = 1024
"""Blocks of caches that one message names to be held, or to be gone."""

BlockName = Annotated[bytes, msgspec.Meta(min_length=8, max_length=32)]

T = TypeVar("T")


class _Message(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower
):
    """A message; fields added later need a default, unknown ones are skipped."""


class Configure(_Message, frozen=True, kw_only=True):
    """What the working side, ``name`` in logs, is to serve: ``loader`` ("module:function"), called with
    ``arguments``, returns a project that has the ``commands``."""

    name: str
    loader: str
    arguments: Mapping[str, str] = {}
    commands: tuple[str, ...]
    path: tuple[str, ...] = ()  # where modules are found
    log_levels: Mapping[str, int] = {}  # by logger
    log_json: bool = False  # one object a line


class Hello(_Message, frozen=True, kw_only=True):
    """The working side is ready, or says why it cannot be."""

    error: str = ""


class Open(_Message, frozen=True, kw_only=True):
    """Run a command once.  ``input`` and ``output_config`` are JSON objects; ``window`` is how many bytes of
    items may be sent before credit must come; ``remaining_s`` is the time left to the call's deadline, in
    seconds: the clocks of two machines need not agree; ``more_input``: items of input follow;
    ``counts_input``: the other side is to say how many of them were taken."""

    request_id: str
    task_id: str
    command: str
    input: bytes = b"{}"
    output_config: bytes = b"{}"
    notes: bool = False
    window: int
    remaining_s: float | None = None
    correlation_id: str = ""
    trace_parent: str | None = None
    more_input: bool = False
    counts_input: bool = False


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ``CallError`` on its way; ``details`` is a JSON array."""

    code: ErrorCode
    message: str
    retryable: bool
    details: bytes = b"[]"
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: CallError) -> Failure:
        """Write ``error``; details that are no JSON are left out, as the error itself must always arrive."""
        try:
            details = encode_value(error.details)
        except CallError:
            details = b"[]"
        return cls(
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            details=details,
            retry_after_s=error.retry_after_s,
        )

    def error(self) -> CallError:
        """Return it as it was raised on the other side.

        Raises:
            RemoteProtocolError: The details are no JSON array of objects.
        """
        details = _read(self.details, _details)
        return CallError(
            self.message,
            self.code,
            retryable=self.retryable,
            details=details,
            retry_after_s=self.retry_after_s,
        )


class Check(_Message, frozen=True, kw_only=True):
    """Would a call of this command with this input, a JSON object, be refused?  Nothing runs.  It may be put
    about a workflow in the place of a command, where the working side has said that it has one."""

    number: int
    command: str = ""
    workflow: str = ""
    input: bytes


class Checked(_Message, frozen=True, kw_only=True):
    """Answers the check of this number: with what it would be refused, if it would."""

    number: int
    error: Failure | None = None


class Input(_Message, frozen=True, kw_only=True):
    """One item of a call's input stream, JSON."""

    request_id: str
    item: bytes


class InputTaken(_Message, frozen=True, kw_only=True):
    """A call's command has taken so many more items of its input stream: as many more may be sent.  Said only
    where ``Open.counts_input`` asks for it, and not of items that came with the call."""

    request_id: str
    count: Annotated[int, msgspec.Meta(ge=1)]


class InputEnd(_Message, frozen=True, kw_only=True):
    """No more items of input come for a call."""

    request_id: str


class Cancel(_Message, frozen=True, kw_only=True):
    """Cut a call short."""

    request_id: str
    reason: CancelReason


class Credit(_Message, frozen=True, kw_only=True):
    """So many bytes of a call's items have been taken: as many more may be sent."""

    request_id: str
    size: int


class Items(_Message, frozen=True, kw_only=True):
    """Items that a command yielded, each one JSON."""

    request_id: str
    items: list[bytes]


class Progress(_Message, frozen=True, kw_only=True):
    """How far a call is: the ``data`` of a progress frame, JSON."""

    request_id: str
    about: bytes


class End(_Message, frozen=True, kw_only=True):
    """A call has ended and its work has stopped: with ``error``, or cut for ``reason``, or well, then perhaps
    with an ``answer`` (JSON).  ``confirmed``: an engine there has confirmed the end of cancelled work."""

    request_id: str
    answer: bytes | None = None
    error: Failure | None = None
    reason: CancelReason | None = None
    report: EngineReport | None = None
    confirmed: bool = False


class Ping(_Message, frozen=True, kw_only=True):
    """Are you there?  Answered by the event loop that does the work."""

    number: int


class Pong(_Message, frozen=True, kw_only=True):
    """Answers the ping of this number."""

    number: int


class Cached(_Message, frozen=True, kw_only=True):
    """What the caches of the working side hold has changed: ``gone`` first, then ``held``.  ``number`` is one
    more than the last one's; with ``anew``, all that was said before is void, and any number may come."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    anew: bool = False
    gone: Annotated[list[BlockName], msgspec.Meta(max_length=MAX_NAMED)] = []
    held: Annotated[list[BlockName], msgspec.Meta(max_length=MAX_NAMED)] = []


class Close(_Message, frozen=True, kw_only=True):
    """End in good order: no more calls will come."""


Message: TypeAlias = (
    Configure
    | Hello
    | Open
    | Check
    | Checked
    | Input
    | InputTaken
    | InputEnd
    | Cancel
    | Credit
    | Items
    | Progress
    | End
    | Ping
    | Pong
    | Cached
    | Close
)


def read_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a message carries.

    Raises:
        RemoteProtocolError: It is none.
    """
    return _read(text, _object)


class SessionCodec:
    """Both directions of one link; pure, so that any transport can carry it.

    Args:
        max_message: Bytes that one message may have, its length not counted.
    """

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max = max_message
        self._buffer = bytearray()
        self._broken: str | None = None

    @property
    def buffered(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._buffer)

    def encode(self, message: Message) -> bytes:
        """Return ``message`` as bytes.

        Raises:
            LocalProtocolError: It is larger than a message may be; the link is still good.
        """
        body = encode_message(message)
        if len(body) > self._max:
            kind = type(message).__name__.lower()
            raise LocalProtocolError(
                f"a message {kind!r} has {len(body)} bytes; at most {self._max} are allowed"
            )
        return len(body).to_bytes(HEAD, "big") + body

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes as they come; return the messages that are complete.

        Raises:
            RemoteProtocolError: They are not what this codec writes.  The link is of no use from then on, and
                whatever was complete before stays unread.
        """
        if self._broken is not None:
            raise RemoteProtocolError(self._broken)
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while (end := self._end_of_message(start)) is not None:
            messages.append(self._decode(start + HEAD, end))
            start = end
        del self._buffer[:start]
        return messages

    def _end_of_message(self, start: int) -> int | None:
        """Return where the message at ``start`` ends; None while it is not all there."""
        if len(self._buffer) - start < HEAD:
            return None
        size = int.from_bytes(self._buffer[start : start + HEAD], "big")
        if size > self._max:
            raise self._break(f"a message claims {size} bytes; at most {self._max} are allowed")
        end = start + HEAD + size
        return end if end <= len(self._buffer) else None

    def _decode(self, start: int, end: int) -> Message:
        try:
            with memoryview(self._buffer) as whole, whole[start:end] as body:
                return decode_message(body, self._max)
        except RemoteProtocolError as error:
            raise self._break(str(error)) from error

    def _break(self, fault: str) -> RemoteProtocolError:
        self._broken = fault
        self._buffer.clear()
        return RemoteProtocolError(fault)


def encode_message(message: Message) -> bytes:
    """Return ``message`` as msgpack, without its length."""
    return _encode(message)


def decode_message(body: bytes | memoryview, max_message: int) -> Message:
    """Read one message, msgpack without its length.

    Raises:
        RemoteProtocolError: It is none, or too large.
    """
    if len(body) > max_message:
        raise RemoteProtocolError(f"a message has {len(body)} bytes; at most {max_message} are allowed")
    try:
        message: Message = _decode(body)
        return message
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not a message: {error}") from error


def _read(text: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a message carries JSON that cannot be read: {error}") from error


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode
_object = msgspec.json.Decoder(dict[str, Any])
_details: msgspec.json.Decoder[list[Mapping[str, Any]]] = msgspec.json.Decoder(list[Mapping[str, Any]])
