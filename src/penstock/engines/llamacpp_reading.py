"""What llama.cpp says while it answers, read into events with real ids, times and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from penstock.engines.answer import Answer
from penstock.engines.base import refuse_over_budget
from penstock.engines.embedded import peak_mem_mb
from penstock.engines.stops import StopFilter
from penstock.errors import CallError, ErrorCode
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

Chunk = Mapping[str, Any]

_NO_TIMINGS: Mapping[str, float] = {}


class LlamaReading(Answer):
    """Turns the chunks of one answer into events; it is fed from the engine's thread.

    Stop strings are looked for here, not in llama.cpp: that one loses text it holds back when the answer
    ends for another reason.

    Args:
        request: What was asked.
        engine_id: Who answers.
        clock: Unix seconds, never going back.
        tokens_of: The model's own tokenizer; it recovers the ids of a character made of several tokens.
    """

    def __init__(
        self,
        request: EngineRequest,
        engine_id: str,
        clock: Callable[[], float],
        tokens_of: Callable[[str], list[int]],
    ) -> None:
        super().__init__(request, engine_id, clock)
        self._tokens_of = tokens_of
        self._stops = StopFilter(request.sampling.stop)
        self._timings = _NO_TIMINGS
        self._prompt_tokens: int | None = None
        self._counted = 0
        self._pending_ids: list[int] = []
        self._executed_at: float | None = None

    @property
    def evaluated(self) -> bool:
        """Whether the whole prompt was read, and so is held."""
        return self._executed_at is not None

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt were held before."""
        return int(self._timings.get("cache_n", 0))

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has, of which the last answer's timings tell."""
        return self.cached_tokens + int(self._timings.get("prompt_n", 0))

    @property
    def answer_ids(self) -> list[int]:
        """The ids of the answer so far."""
        return self._ids

    def feed(self, chunk: Chunk) -> Iterator[EngineEvent]:
        """The events one chunk makes, often none; each is given before the rest of the chunk is read.

        Raises:
            CallError: llama.cpp refused the request.
        """
        if "error" in chunk:
            yield self.failed(_fault(chunk["error"], self.request))
            return
        now = self._clock()
        if not self.begun:
            yield self._start(chunk, now)
        timings = self._timings = chunk.get("timings") or self._timings
        if self._executed_at is None and timings.get("predicted_n"):
            self._executed_at = now - timings["predicted_ms"] / 1000
        choice = chunk["choices"][0]
        text = choice.get("text") or choice.get("delta", {}).get("content") or ""
        self._pending_ids += self._new_ids(choice, text)
        shown = self._stops.feed(text)
        reason = self._reason(choice)
        if reason and not self._stops.hit:
            shown += self._stops.flush()
        if shown or (reason and self._pending_ids):
            yield self._delta(shown, now)
        if reason:
            yield self._end(reason, now)

    def _start(self, chunk: Chunk, now: float) -> EngineStart:
        self._prompt_tokens = chunk.get("prompt_progress", {}).get("total")
        refuse_over_budget(self.request, self._prompt_tokens or 0)
        self._scheduled_at = now
        return self.start(self._prompt_tokens)

    def _new_ids(self, choice: Chunk, text: str) -> list[int]:
        # A character of several tokens comes in one chunk that names only the last of them.
        told = [entry["id"] for entry in (choice.get("logprobs") or {}).get("content", ())]
        count = int(self._timings.get("predicted_n", 0))
        made, self._counted = count - self._counted, count
        if told and made > len(told):
            known = self._tokens_of(text)
            if len(known) == made and known[-1] == told[-1]:
                return known
        return told

    def _reason(self, choice: Chunk) -> FinishReason | None:
        if self._stops.hit:
            return "stop"
        if choice.get("finish_reason"):
            return "length" if choice["finish_reason"] == "length" else "stop"
        budget = self.request.kv_budget_tokens
        spent = (self._prompt_tokens or 0) + self._counted
        return "length" if budget is not None and spent >= budget else None

    def _delta(self, text: str, now: float) -> EngineDelta:
        ids, self._pending_ids = self._pending_ids, []
        return self.delta(text, ids, now=now)

    def _end(self, reason: FinishReason, now: float, error: EventError | None = None) -> EngineEnd:
        self.usage = self._usage()
        return super()._end(reason, now, error)

    def _usage(self) -> EventUsage | UnsetType:
        timings = self._timings
        if "prompt_n" not in timings:
            return UNSET
        cached = int(timings.get("cache_n", 0))
        return EventUsage(
            prompt_tokens=cached + int(timings["prompt_n"]),
            completion_tokens=int(timings.get("predicted_n", 0)),
            cached_tokens=cached,
        )

    def _metrics(self, now: float) -> EventMetrics:
        timings = self._timings
        cached, computed = int(timings.get("cache_n", 0)), int(timings.get("prompt_n", 0))
        predicted, predicted_ms = int(timings.get("predicted_n", 0)), timings.get("predicted_ms", 0.0)
        executed_at = now if self._executed_at is None else self._executed_at
        gaps = [(b - a) * 1000 for a, b in zip(self._times, self._times[1:], strict=False)]
        # The clock of predicted_ms starts when the first token is there.
        per_token_ms = predicted_ms / (predicted - 1) if predicted > 1 else 0.0
        return EventMetrics(
            ttft_ms=(executed_at - self._queued_at) * 1000,
            tbt_ms=sum(gaps) / len(gaps) if gaps else 0.0,
            tpot_ms=per_token_ms,
            throughput_tps=1000 / per_token_ms if per_token_ms else self._whole_rate(predicted, now),
            peak_mem_mb=peak_mem_mb(),
            error_rate=0.0,
            kv_used_tokens=cached + computed + predicted,
            prefix_hit_rate=cached / (cached + computed) if cached + computed else 0.0,
            itl_list=gaps,
            timestamps=EventTimestamps(
                queued_at=self._queued_at,
                scheduled_at=self._scheduled_at,
                executed_at=executed_at,
                completed_at=now,
            ),
        )

    def _whole_rate(self, predicted: int, now: float) -> float:
        # A single token has no gap to measure: its rate is that of the whole answer.
        spent_s = now - self._scheduled_at
        return predicted / spent_s if spent_s > 0 else 0.0


def _fault(error: Mapping[str, Any], request: EngineRequest) -> CallError:
    if error.get("type") == "exceed_context_size_error":
        return CallError(
            f"the prompt takes {error['n_prompt_tokens']} tokens and the model's context holds "
            f"{error['n_ctx']} per call; shorten the prompt or open the engine with a larger context_tokens",
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["messages" if request.messages else "prompt"], "reason": "too long"}],
        )
    said = f"llama.cpp: {error.get('message', 'failed without a message')}"
    if error.get("code") == 400:
        return CallError(said, ErrorCode.INVALID_ARGUMENT)
    return CallError(said, ErrorCode.UPSTREAM_FAILED)
