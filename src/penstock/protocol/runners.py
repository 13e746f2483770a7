"""How a runner and a gateway meet: the first message each sends on a connection.

The runner says who it is, what it offers, and which session it goes on with, if any (``RunnerHello``).  The
gateway answers with a ``Welcome`` or a ``Refusal``.  From then on the connection carries the parcels of
``penstock.protocol.reliable``.  In the session, ``Close`` from the runner says that it takes no more calls;
from the gateway, which answers it with the same, that no more will come.

Pure: no clock, no event loop, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec

from penstock.errors import CallError, ErrorCode, RemoteProtocolError
from penstock.protocol.depth import check_depth
from penstock.protocol.dispatch import OpenAIKind
from penstock.protocol.messages import MAX_TIMEOUT_S

PATH = "/v2/runners"
"""Where a gateway takes the WebSockets of runners."""
VERSION = 1
"""Of the language after the hello; a side that does not speak the other's says so and leaves."""
MAX_HELLO = 4 * 1024 * 1024
"""Bytes of a hello: most of them are the schemas of its commands."""
MAX_OFFERS = 256
MAX_WORKFLOWS = 256
MAX_LABELS = 32
MAX_CONCURRENCY = 1_000_000

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z"
SESSION = r"^([0-9a-f]{32})?\Z"

Name = Annotated[str, msgspec.Meta(pattern=NAME)]
CommandName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")]
WorkflowName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_CONCURRENCY)]
Waiting = Annotated[int, msgspec.Meta(ge=0, le=MAX_CONCURRENCY)]
Number = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)]
Labels = Annotated[dict[Text, Text], msgspec.Meta(max_length=MAX_LABELS)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields added later need a default; unknown ones are skipped."""


class _Message(_Part, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """One of the first messages."""


class OfferedTimeouts(_Part, frozen=True, kw_only=True):
    """Budgets of a call, in seconds, as the manifest has them."""

    queue_s: Seconds | None = None
    first_item_s: Seconds | None = None
    gap_s: Seconds | None = None
    total_s: Seconds | None = None


class Offer(_Part, frozen=True, kw_only=True):
    """A command that a runner runs.

    Attributes:
        input_schema: JSON Schema of the input.
        item_schema: ... of an item or the answer.
        takes_stream: Items of input may follow the call.
        counts_input: The runner says how many of them were taken, if it is asked to.
        concurrency: Calls of it at once.
        queue: How many more may wait.
        idempotent: Running it twice does no harm.
        disconnect_s: What happens to a call that does not say so itself when its last reader has gone: it is
            cancelled after so many seconds; -1 lets it run on, None leaves it to the gateway.
        openai: Which OpenAI-compatible route it serves.
        model: What it is called there, if not by its own name.
    """

    name: CommandName
    description: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    streaming: bool = False
    input_schema: dict[str, Any] = {}
    item_schema: dict[str, Any] = {}
    takes_stream: bool = False
    counts_input: bool = False
    concurrency: Count = 1
    queue: Waiting = 0
    idempotent: bool = False
    timeouts: OfferedTimeouts = OfferedTimeouts()
    disconnect_s: Annotated[float, msgspec.Meta(ge=-1, le=MAX_TIMEOUT_S)] | None = None
    openai: OpenAIKind | None = None
    model: Text | None = None

    def __post_init__(self) -> None:
        for schema in (self.input_schema, self.item_schema):
            _check_shown(f"a schema of {self.name}", schema)


class OfferedWorkflow(_Part, frozen=True, kw_only=True):
    """A workflow of commands that the same runner offers.

    Attributes:
        spec: Its part of the manifest (WIRE.md section 4).
    """

    name: WorkflowName
    spec: dict[str, Any]

    def __post_init__(self) -> None:
        _check_shown(f"the workflow {self.name}", self.spec)


def _check_shown(what: str, value: object) -> None:
    """See that something can be shown to everybody, as JSON."""
    try:
        check_depth(msgspec.json.encode(value))
    except (CallError, TypeError, RecursionError) as error:
        raise ValueError(f"{what} cannot be shown: {error}") from error


class RunnerHello(_Message, frozen=True, kw_only=True):
    """A runner dials in.

    Attributes:
        version: Of this language.
        software: What it is, for people.
        name: Of the runner; no two of a gateway have the same.
        session: The one it goes on with; empty for a new one.
        received: Number of the last message of that session that it has.
        capacity: Calls at once, whatever they are.
        labels: For calls that ask for some.
        default_command: The command of calls that name none.
    """

    version: int = VERSION
    software: Text = ""
    name: Name
    session: Annotated[str, msgspec.Meta(pattern=SESSION)] = ""
    received: Number = 0
    offers: Annotated[list[Offer], msgspec.Meta(max_length=MAX_OFFERS)] = []
    capacity: Count = MAX_CONCURRENCY
    labels: Labels = {}
    workflows: Annotated[list[OfferedWorkflow], msgspec.Meta(max_length=MAX_WORKFLOWS)] = []
    default_command: Text = ""

    def __post_init__(self) -> None:
        for what, offered in (("command", self.offers), ("workflow", self.workflows)):
            names = [offer.name for offer in offered]
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} is offered twice")


class Welcome(_Message, frozen=True, kw_only=True):
    """The runner is taken in.

    Attributes:
        session: Its session, new or the one it named; whoever knows it may go on with it.
        received: Number of the last message of it that the gateway has.
        heartbeat_s: How often the gateway asks whether it is there.
        resume_s: How long the session outlives its connection.
        max_message: Bytes that the gateway takes in one WebSocket message.
        prefix_blocks: How many blocks of the runner's caches the gateway keeps in mind; 0 asks for none to be
            told, as does a gateway that never heard of it.
    """

    version: int = VERSION
    session: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    received: Number = 0
    heartbeat_s: Seconds
    resume_s: Seconds
    max_message: Annotated[int, msgspec.Meta(ge=1024)]
    prefix_blocks: Number = 0


class Refusal(_Message, frozen=True, kw_only=True):
    """The runner is not taken in; the connection ends behind this."""

    code: ErrorCode
    message: str

    def error(self) -> CallError:
        """Return it as an exception."""
        return CallError(self.message, self.code)


Reply: TypeAlias = Welcome | Refusal


def encode_hello(message: RunnerHello | Welcome | Refusal) -> bytes:
    """Return ``message`` as msgpack."""
    return _encode(message)


def read_hello(data: bytes) -> RunnerHello:
    """Read what a runner sends first.

    Raises:
        RemoteProtocolError: It is no hello.
        CallError: ``failed_precondition``; it speaks another version.
    """
    _check_version(data)
    hello: RunnerHello = _read(data, _decode_hello)
    return hello


def read_reply(data: bytes) -> Reply:
    """Read what a gateway answers.

    Raises:
        RemoteProtocolError: It is no answer.
        CallError: ``failed_precondition``; it speaks another version.
    """
    _check_version(data)
    reply: Reply = _read(data, _decode_reply)
    return reply


def check_name(name: str) -> str:
    """Return ``name`` if a runner may have it.

    Raises:
        ValueError: It may not.
    """
    if not re.match(NAME, name):
        raise ValueError("1 to 64 letters, digits, '_', '.' or '-', the first a letter or digit")
    return name


class _Versioned(msgspec.Struct):
    """What is read before anything else: of another version only this is understood."""

    version: int = VERSION


def _check_version(data: bytes) -> None:
    said = _read(data, _decode_version).version
    if said != VERSION:
        text = f"it speaks version {said} of the runner protocol, here it is {VERSION}; update the older side"
        raise CallError(text, ErrorCode.FAILED_PRECONDITION)


def _read(data: bytes, decode: Any) -> Any:
    if len(data) > MAX_HELLO:
        raise RemoteProtocolError(f"a hello has {len(data)} bytes; at most {MAX_HELLO} are allowed")
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not a hello: {str(error)[:300]}") from error


_encode = msgspec.msgpack.Encoder().encode
_decode_hello = msgspec.msgpack.Decoder(RunnerHello).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode
_decode_version = msgspec.msgpack.Decoder(_Versioned).decode


def labels_match(asked: Mapping[str, str], given: Mapping[str, str]) -> bool:
    """Whether a runner with the labels ``given`` has all that are ``asked`` for."""
    return all(given.get(name) == value for name, value in asked.items())
