"""The answer to one request as events: one start, pieces, exactly one end; what every adapter tells alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from msgspec import UNSET, UnsetType

from penstock.engines.base import error_event
from penstock.errors import CallError
from penstock.protocol.events import (
    EngineDelta,
    EngineEnd,
    EngineRequest,
    EngineStart,
    EventError,
    EventMetrics,
    EventUsage,
    FinishReason,
)


class Answer(ABC):
    """Makes the events of one answer, and keeps what its end repeats.

    Args:
        request: What was asked.
        engine_id: Who answers.
        clock: Unix seconds, never going back.
    """

    def __init__(self, request: EngineRequest, engine_id: str, clock: Callable[[], float]) -> None:
        self.request = request
        self.engine_id = engine_id
        self.begun = False
        """Whether the start event was made."""
        self.ended = False
        """Whether the end event was made."""
        self.usage: EventUsage | UnsetType = UNSET
        """Counts of tokens, where they are known."""
        self.raw_finish_reason: str | UnsetType = UNSET
        """The server's own word for why the answer ended."""
        self._clock = clock
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._times: list[float] = []  # of its pieces
        self._queued_at = self._scheduled_at = clock()

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    def start(self, prompt_tokens: int | None = None) -> EngineStart:
        """The one start event."""
        self.begun = True
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
        now: float | None = None,
    ) -> EngineDelta:
        """A piece of the answer.

        Args:
            text: Its text; empty for a piece of reasoning or of a tool call.
            tokens: Its token ids, where they are known.
            reasoning: What the model thinks, as far as it came with this piece.
            tool_calls: Pieces of tool calls, in OpenAI's streamed shape.
            now: When it came, if the clock was looked at already.
        """
        self._times.append(self._clock() if now is None else now)
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

    def failed(self, error: CallError) -> EngineEnd:
        """The end event of an answer that failed.

        Raises:
            CallError: ``error``, when the answer had not begun.
        """
        if not self.begun:
            raise error
        return self._end("error", self._clock(), error_event(error))

    def _end(self, reason: FinishReason, now: float, error: EventError | None = None) -> EngineEnd:
        self.ended = True
        return EngineEnd(
            request_id=self.request.request_id,
            trace_id=self.request.trace_id,
            engine_id=self.engine_id,
            output_text=self.text,
            output_tokens=self._ids,
            finish_reason=reason,
            metrics=self._metrics(now),
            error=error,
            usage=self.usage,
            raw_finish_reason=self.raw_finish_reason,
        )

    @abstractmethod
    def _metrics(self, now: float) -> EventMetrics:
        """Return what was measured, at the end."""
