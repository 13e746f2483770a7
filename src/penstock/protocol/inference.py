"""The typed inference protocol v0.1: what stands on the wire, checked at the edges.

Fields, their order, limits and error types are those of v0.1, with three declared differences:

- a number that is not finite is rejected wherever it stands, also inside ``metadata``;
- ``ErrorCode`` has more members (``to_v01`` maps them back);
- the names later releases give to the text of an event (``content``, ``content_tokens``) are read too, and
  ``dump_event`` writes them on request.

Canonical JSON is ``model_dump_json()``.  Reading is lax: ``"24"`` is an ``int``, ``"yes"`` a ``bool``.
The engines' own, unchecked form of the same events is ``penstock.protocol.events``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import InitErrorDetails, to_json

from penstock.errors import FAULTS, ErrorCode, RemoteProtocolError, StreamTruncated
from penstock.protocol.events import (
    EngineEnd,
    EngineEvent,
    EngineRequest,
    FinishReason,
    Sampling,
)
from penstock.protocol.finite import non_finite

__all__ = [
    "DeltaEvent",
    "EndEvent",
    "Error",
    "ErrorCode",
    "FinishReason",
    "Metrics",
    "Request",
    "Response",
    "StartEvent",
    "StreamEvent",
    "StreamEventDelta",
    "StreamEventEnd",
    "StreamEventStart",
    "Timestamps",
    "WireModel",
    "collect_response",
    "dump_event",
    "dump_event_json",
    "from_event",
    "parse_stream_event",
    "request_to_engine",
    "to_v01",
]


class WireModel(BaseModel):
    """Base of every type of the protocol: unknown fields are dropped, numbers are finite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


def _all_finite(metadata: dict[str, Any]) -> dict[str, Any]:
    found = [
        InitErrorDetails(type="finite_number", loc=path, input=value) for path, value in non_finite(metadata)
    ]
    if found:
        raise ValidationError.from_exception_data("metadata", found)
    return metadata


Metadata: TypeAlias = Annotated[dict[str, Any], AfterValidator(_all_finite)]
Rate: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Request(WireModel):
    """One text generation asked for; ``max_tokens`` and ``kv_budget_tokens`` are in tokens.

    ``temperature`` and ``top_p`` left out mean the engine's default.
    """

    request_id: str
    trace_id: str
    model: str
    prompt: str
    max_tokens: PositiveInt
    stream: bool
    temperature: Annotated[float, Field(gt=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_budget_tokens: PositiveInt | None = None
    metadata: Metadata | None = None


class Error(WireModel):
    """Why a generation failed. A value on the wire, not an exception; ``message`` holds nothing secret."""

    code: ErrorCode
    message: str
    retryable: bool | None = None


class Timestamps(WireModel):
    """Four moments of a generation, in Unix seconds; their order is not checked.

    The spans derived from them are in seconds too and never stand on the wire.
    """

    queued_at: float
    scheduled_at: float
    executed_at: float
    completed_at: float

    @property
    def queue_wait_s(self) -> float:
        """From entering the queue until resources were assigned."""
        return self.scheduled_at - self.queued_at

    @property
    def prefill_s(self) -> float:
        """From having resources to the first token."""
        return self.executed_at - self.scheduled_at

    @property
    def ttft_s(self) -> float:
        """From entering the queue to the first token."""
        return self.executed_at - self.queued_at

    @property
    def decode_s(self) -> float:
        """From the first token to the end."""
        return self.completed_at - self.executed_at

    @property
    def total_s(self) -> float:
        """From entering the queue to the end."""
        return self.completed_at - self.queued_at


class Metrics(WireModel):
    """What a generation cost: ``_ms`` milliseconds, ``_mb`` MB, ``_tps`` tokens per second, rates 0 to 1.

    ``itl_list`` holds the milliseconds between deltas; ``component_trace`` the parts passed, each
    ``"package"`` or ``"package:Engine"``.
    """

    ttft_ms: NonNegativeFloat
    tbt_ms: NonNegativeFloat = 0.0
    tpot_ms: NonNegativeFloat = 0.0
    throughput_tps: NonNegativeFloat
    peak_mem_mb: NonNegativeInt
    error_rate: Rate
    kv_used_tokens: NonNegativeInt = 0
    kv_used_bytes: NonNegativeInt = 0
    prefix_hit_rate: Rate = 0.0
    evict_count: NonNegativeInt = 0
    evict_ms: NonNegativeFloat = 0.0
    spec_accept_rate: Rate = 0.0
    itl_list: list[float] = Field(default_factory=list)
    timestamps: Timestamps | None = None
    component_trace: list[str] | None = None


class Response(WireModel):
    """A whole answer; ``error`` and ``finish_reason`` are not checked against each other."""

    request_id: str
    trace_id: str
    output_text: str
    output_tokens: list[int]
    finish_reason: FinishReason
    metrics: Metrics
    error: Error | None = None


class StreamEventStart(WireModel):
    """The engine took the request."""

    event: Literal["start"] = "start"
    request_id: str
    trace_id: str
    engine_id: str
    prompt_tokens: int | None = None


class StreamEventDelta(WireModel):
    """A piece of the answer: its text and its token ids."""

    event: Literal["delta"] = "delta"
    request_id: str
    trace_id: str
    engine_id: str
    chunk: str = Field(validation_alias=AliasChoices("chunk", "content"))
    chunk_tokens: list[int] = Field(validation_alias=AliasChoices("chunk_tokens", "content_tokens"))


class StreamEventEnd(WireModel):
    """The end of the answer: all of it, why it ended, and what it cost."""

    event: Literal["end"] = "end"
    request_id: str
    trace_id: str
    engine_id: str
    output_text: str = Field(validation_alias=AliasChoices("output_text", "content"))
    output_tokens: list[int]
    finish_reason: FinishReason
    metrics: Metrics
    error: Error | None = None


StartEvent = StreamEventStart
DeltaEvent = StreamEventDelta
EndEvent = StreamEventEnd

StreamEvent: TypeAlias = Annotated[
    StreamEventStart | StreamEventDelta | StreamEventEnd, Field(discriminator="event")
]

_stream_event: TypeAdapter[StreamEvent] = TypeAdapter(StreamEvent)


def parse_stream_event(source: object) -> StreamEvent:
    """Reads one event from JSON text (``str`` or bytes) or from a decoded object.

    Raises:
        ValidationError: with every mistake; inner paths begin with the event's tag.
    """
    if isinstance(source, (str, bytes, bytearray)):
        return _stream_event.validate_json(source)
    return _stream_event.validate_python(source)


def dump_event(event: StreamEvent, *, both_spellings: bool = False) -> dict[str, Any]:
    """The event as plain JSON data, in wire order.

    Args:
        both_spellings: Adds the later releases' names after the v0.1 fields, for a reader of either.
    """
    data = event.model_dump(mode="json")
    if both_spellings:
        for name, field in type(event).model_fields.items():
            if isinstance(field.validation_alias, AliasChoices):
                data |= {str(later): data[name] for later in field.validation_alias.choices[1:]}
    return data


def dump_event_json(event: StreamEvent, *, both_spellings: bool = False) -> str:
    """The event as canonical JSON, or that plus the later spellings (see ``dump_event``)."""
    return (
        to_json(dump_event(event, both_spellings=True)).decode()
        if both_spellings
        else event.model_dump_json()
    )


# v0.1 is coarser than gRPC: whatever the caller must change is invalid_argument, whatever broke on this
# side is unavailable.  Going through the gRPC column keeps one failure alike on both wires.
_V01_OF_GRPC: Mapping[str, ErrorCode] = {
    "INVALID_ARGUMENT": ErrorCode.INVALID_ARGUMENT,
    "UNAUTHENTICATED": ErrorCode.INVALID_ARGUMENT,
    "PERMISSION_DENIED": ErrorCode.INVALID_ARGUMENT,
    "NOT_FOUND": ErrorCode.INVALID_ARGUMENT,
    "ABORTED": ErrorCode.INVALID_ARGUMENT,
    "FAILED_PRECONDITION": ErrorCode.INVALID_ARGUMENT,
    "OUT_OF_RANGE": ErrorCode.INVALID_ARGUMENT,
    "RESOURCE_EXHAUSTED": ErrorCode.RESOURCE_EXHAUSTED,
    "UNIMPLEMENTED": ErrorCode.NOT_IMPLEMENTED,
    "DEADLINE_EXCEEDED": ErrorCode.DEADLINE_EXCEEDED,
    "UNAVAILABLE": ErrorCode.UNAVAILABLE,
    "CANCELLED": ErrorCode.UNAVAILABLE,
    "INTERNAL": ErrorCode.UNAVAILABLE,
}


def to_v01(error: Error) -> Error:
    """A copy that every v0.1 reader accepts: its code is the nearest of the five.

    Where the code changes and ``retryable`` was left open, the answer for the original code is filled in:
    the coarser code would say something else (a cancelled call is not worth a retry, ``unavailable`` is).
    """
    fault = FAULTS[error.code]
    code = _V01_OF_GRPC[fault.grpc]
    open_answer = error.retryable is None and code is not error.code
    retryable = fault.retryable if open_answer else error.retryable
    return error.model_copy(update={"code": code, "retryable": retryable})


def from_event(event: EngineEvent) -> StreamEvent:
    """The checked form of what an engine yielded.

    Raises:
        ValidationError: the engine broke a limit of the protocol.
    """
    return _stream_event.validate_python(msgspec.to_builtins(event))


def request_to_engine(request: Request) -> EngineRequest:
    """What an engine takes, from what stands on the wire."""
    return EngineRequest(
        request_id=request.request_id,
        trace_id=request.trace_id,
        model=request.model,
        prompt=request.prompt,
        max_tokens=request.max_tokens,
        stream=request.stream,
        kv_budget_tokens=request.kv_budget_tokens,
        metadata=request.metadata,
        sampling=Sampling(temperature=request.temperature, top_p=request.top_p),
    )


def collect_response(events: Iterable[EngineEvent | StreamEvent]) -> Response:
    """The answer a stream of one generation's events adds up to; its end event holds all of it.

    Raises:
        StreamTruncated: there was no end event.
        RemoteProtocolError: an event followed the end, or belongs to another request.
        ValidationError: the end event breaks a limit of the protocol.
    """
    request_id: str | None = None
    end: EngineEnd | StreamEventEnd | None = None
    for event in events:
        request_id = event.request_id if request_id is None else request_id
        if event.request_id != request_id:
            raise RemoteProtocolError(
                f"The stream of request {request_id!r} holds an event of request {event.request_id!r}: "
                "collect each request's events on their own."
            )
        if end is not None:
            raise RemoteProtocolError(f"The stream of request {request_id!r} goes on after its end event.")
        if isinstance(event, (EngineEnd, StreamEventEnd)):
            end = event
    if end is None:
        raise StreamTruncated(
            f"The stream of request {request_id!r} has no end event: its answer may be cut."
        )
    return Response.model_validate(
        msgspec.to_builtins(end) if isinstance(end, EngineEnd) else end.model_dump()
    )
