"""What a server streams, made into the events of one generation: counted, timed, with exactly one end."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from penstock.engines.base import error_event, unix_clock
from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import SseEvent
from penstock.protocol.events import (
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineRequest,
    EngineStart,
    EventError,
    EventMetrics,
    EventTimestamps,
    EventUsage,
    FinishReason,
)


class Reading(ABC):
    """Reads one answer; an adapter says in ``read`` what its server's events mean.

    Args:
        request: What was asked.
        engine_id: Who answers.
        clock: Unix seconds, never going back.
    """

    def __init__(
        self, request: EngineRequest, engine_id: str, clock: Callable[[], float] | None = None
    ) -> None:
        self.request = request
        self.engine_id = engine_id
        self.finish_reason: FinishReason | None = None
        """Why the answer ended; set by ``read`` when the server says so.  Without one it was cut."""
        self.raw_finish_reason: str | UnsetType = UNSET
        """The server's own word for it."""
        self.failure: CallError | None = None
        """Set by ``read`` instead of a reason: the server ended the answer, and not well."""
        self.over = False
        """Set by ``read`` when the server said its last, well or not: nothing more is due, or running."""
        self.usage: EventUsage | UnsetType = UNSET
        """Counts as the server gives them."""
        self.begun = False
        self.flowing = False
        self._clock = unix_clock() if clock is None else clock
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._times: list[float] = []
        self._queued_at = self._scheduled_at = self._clock()

    @abstractmethod
    def read(self, event: SseEvent) -> Sequence[EngineEvent]:
        """Make events of what the server sent: ``start`` once, ``delta`` for what was generated.

        Sets ``finish_reason``, ``usage`` and ``over`` when the server tells them.

        Raises:
            CallError: The server says that it failed, or what it sent cannot be read.
        """

    def start(self, prompt_tokens: int | None = None) -> EngineStart:
        """The one start event; an adapter makes it of the first thing that is no error."""
        self.begun = True
        self._scheduled_at = self._clock()
        return EngineStart(
            request_id=self.request.request_id,
            trace_id=self.request.trace_id,
            engine_id=self.engine_id,
            prompt_tokens=prompt_tokens,
        )

    def delta(
        self,
        text: str,
        tokens: list[int] | None = None,
        *,
        reasoning: str | UnsetType = UNSET,
        tool_calls: list[dict[str, Any]] | UnsetType = UNSET,
    ) -> EngineDelta:
        """A piece of the answer.

        Args:
            text: Its text; empty for a piece of reasoning or of a tool call.
            tokens: Its token ids, where the server tells them.
            reasoning: What the model thinks, as far as it came with this piece.
            tool_calls: Pieces of tool calls, in OpenAI's streamed shape.
        """
        self.flowing = True
        self._times.append(self._clock())
        self._texts.append(text)
        ids = [] if tokens is None else tokens
        self._ids += ids
        return EngineDelta(
            request_id=self.request.request_id,
            trace_id=self.request.trace_id,
            engine_id=self.engine_id,
            chunk=text,
            chunk_tokens=ids,
            reasoning=reasoning,
            tool_calls=tool_calls,
        )

    def end(self) -> EngineEnd:
        """The end event of an answer whose stream is over.

        Raises:
            CallError: ``failure``, or ``upstream_failed``: no reason came, so the answer was cut.
        """
        if self.failure is not None:
            raise self.failure
        if self.finish_reason is None:
            said = f"{self.engine_id} broke its answer off: its stream ended without a reason"
            raise CallError(said, ErrorCode.UPSTREAM_FAILED)
        return self._end(self.finish_reason)

    def failed(self, error: CallError) -> EngineEnd:
        """The end event of an answer that failed.

        Raises:
            CallError: ``error``, when the answer had not begun.
        """
        if not self.begun:
            raise error
        told = error_event(error)
        return self._end("error", told)

    def _end(self, reason: FinishReason, error: EventError | None = None) -> EngineEnd:
        return EngineEnd(
            request_id=self.request.request_id,
            trace_id=self.request.trace_id,
            engine_id=self.engine_id,
            output_text="".join(self._texts),
            output_tokens=self._ids,
            finish_reason=reason,
            metrics=self._metrics(self._clock()),
            error=error,
            usage=self.usage,
            raw_finish_reason=self.raw_finish_reason,
        )

    def _metrics(self, now: float) -> EventMetrics:
        times = self._times
        executed_at = times[0] if times else now
        gaps = [(after - before) * 1000 for before, after in itertools.pairwise(times)]
        prompt, answer, cached = self._counts()
        decode_s = now - executed_at
        return EventMetrics(
            ttft_ms=(executed_at - self._queued_at) * 1000,
            tbt_ms=sum(gaps) / len(gaps) if gaps else 0.0,
            tpot_ms=decode_s * 1000 / (answer - 1) if answer > 1 else 0.0,
            throughput_tps=answer / (now - self._queued_at) if now > self._queued_at else 0.0,
            peak_mem_mb=0,
            kv_used_tokens=0 if self.usage is UNSET else prompt + answer,
            prefix_hit_rate=min(1.0, cached / prompt) if prompt else 0.0,
            itl_list=gaps,
            timestamps=EventTimestamps(
                queued_at=self._queued_at,
                scheduled_at=min(self._scheduled_at, executed_at),
                executed_at=executed_at,
                completed_at=now,
            ),
        )

    def _counts(self) -> tuple[int, int, int]:
        """Tokens of the prompt, of the answer, and of the prompt those that were cached."""
        if self.usage is UNSET:
            return 0, len(self._times), 0
        cached = self.usage.cached_tokens
        return self.usage.prompt_tokens, self.usage.completion_tokens, 0 if cached is UNSET else cached
