"""What an engine takes and yields, as light structs for the hot path.

Fields and their order are those of the typed protocol v0.1 (``penstock.protocol.inference`` holds the
validating pydantic twins for the edges); ``EngineRequest`` adds what v0.1 does not carry.  Encoding an
event with msgspec gives the v0.1 JSON form, and after it what an engine told beyond v0.1: those fields are
absent when there is nothing to tell.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

FinishReason = Literal["stop", "length", "error"]
_OPENAI_REASONS = ("stop", "length", "tool_calls", "content_filter")


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are chosen; ``None`` leaves a choice to the engine's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None


UNBOUNDED = 2**31 - 1
"""``max_tokens`` of an answer that goes on until the model ends it, or its context is full."""


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One generation: the v0.1 ``Request``, and what that does not carry.

    ``messages`` (role and content, in OpenAI's shape) are used instead of ``prompt`` when given;
    ``max_tokens`` is in tokens (``UNBOUNDED``: as many as there is room for), ``kv_budget_tokens`` too.
    """

    request_id: str
    trace_id: str
    model: str
    prompt: str = ""
    max_tokens: int = 256
    stream: bool = True
    kv_budget_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    sampling: Sampling = Sampling()
    tools: tuple[dict[str, Any], ...] | None = None
    response_format: dict[str, Any] | None = None


class EventTimestamps(msgspec.Struct, frozen=True, kw_only=True):
    """Unix seconds of the four moments of a generation."""

    queued_at: float
    scheduled_at: float
    executed_at: float
    completed_at: float


class EventMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The v0.1 ``Metrics``: times in milliseconds, rates from 0 to 1, memory in MB."""

    ttft_ms: float
    tbt_ms: float = 0.0
    tpot_ms: float = 0.0
    throughput_tps: float
    peak_mem_mb: int
    error_rate: float = 0.0
    kv_used_tokens: int = 0
    kv_used_bytes: int = 0
    prefix_hit_rate: float = 0.0
    evict_count: int = 0
    evict_ms: float = 0.0
    spec_accept_rate: float = 0.0
    itl_list: list[float] = msgspec.field(default_factory=list)
    timestamps: EventTimestamps | None = None
    component_trace: list[str] | None = None


class EventError(msgspec.Struct, frozen=True, kw_only=True):
    """The v0.1 ``Error`` of an end event; ``code`` is a value of ``errors.ErrorCode``.  ``details``, which
    v0.1 has not, are those of a ``CallError``."""

    code: str
    message: str
    retryable: bool | None = None
    details: list[dict[str, Any]] | UnsetType = UNSET


class EventUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the engine counts them; beyond v0.1.  What it does not tell is absent."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | UnsetType = UNSET
    reasoning_tokens: int | UnsetType = UNSET


class EngineReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an engine tells of a generation when it is over; it stands in the call's terminal frame.

    ``finish_reason`` is OpenAI's word where the engine has one of those: ``stop``, ``length``, ``tool_calls``
    or ``content_filter``.
    """

    metrics: EventMetrics | None = None
    usage: EventUsage | None = None
    finish_reason: str | None = None

    def over(self, former: EngineReport | None) -> EngineReport:
        """Return this, with what it leaves out taken from a report before it."""
        if former is None:
            return self
        return EngineReport(
            metrics=self.metrics or former.metrics,
            usage=self.usage or former.usage,
            finish_reason=self.finish_reason or former.finish_reason,
        )

    def fields(self) -> dict[str, Any]:
        """Return what is known, flat, as it stands among a call's metrics."""
        parts = [msgspec.to_builtins(part) for part in (self.metrics, self.usage) if part is not None]
        plain = {name: value for part in parts for name, value in part.items() if value is not None}
        return plain if self.finish_reason is None else {**plain, "finish_reason": self.finish_reason}


class EngineStart(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="start"):
    """The engine took the request; ``prompt_tokens`` is its count where it is known that early."""

    request_id: str
    trace_id: str
    engine_id: str
    prompt_tokens: int | None = None


class EngineDelta(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="delta"):
    """A piece of the answer: its text and the token ids it is made of.

    Beyond v0.1: what a model thinks (``reasoning``), and pieces of ``tool_calls`` in OpenAI's streamed shape.
    """

    request_id: str
    trace_id: str
    engine_id: str
    chunk: str
    chunk_tokens: list[int]
    reasoning: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class EngineEnd(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="end"):
    """The one end of a generation: the whole answer, why it ended, and what it cost.

    Beyond v0.1: the engine's own counts (``usage``) and its own word for the reason (``raw_finish_reason``).
    """

    request_id: str
    trace_id: str
    engine_id: str
    output_text: str
    output_tokens: list[int]
    finish_reason: FinishReason
    metrics: EventMetrics
    error: EventError | None = None
    usage: EventUsage | UnsetType = UNSET
    raw_finish_reason: str | UnsetType = UNSET

    def report(self) -> EngineReport:
        """Return what is to be told of this generation."""
        raw = self.raw_finish_reason
        return EngineReport(
            metrics=self.metrics,
            usage=None if self.usage is UNSET else self.usage,
            finish_reason=raw if raw in _OPENAI_REASONS else self.finish_reason,
        )


EngineEvent = EngineStart | EngineDelta | EngineEnd
