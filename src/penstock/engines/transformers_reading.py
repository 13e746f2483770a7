"""The tokens of a model of the package transformers, read into events with real ids, times and counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from penstock.engines.answer import Answer
from penstock.engines.base import refuse_over_budget
from penstock.engines.detokenize import Detokenizer
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


class TokenReading(Answer):
    """Turns the tokens of one answer into events; it is fed from the engine's thread.

    Args:
        request: What was asked.
        engine_id: Who answers.
        clock: Unix seconds, never going back.
        decode: Makes text of token ids.
        ends: Tokens that end an answer and are no part of it.
    """

    def __init__(
        self,
        request: EngineRequest,
        engine_id: str,
        clock: Callable[[], float],
        decode: Callable[[Sequence[int]], str],
        ends: Collection[int],
    ) -> None:
        super().__init__(request, engine_id, clock)
        self.limit = 0
        """Most tokens of the answer; known once it has begun."""
        self._ends = ends
        self._detokenizer = Detokenizer(decode)
        self._stops = StopFilter(request.sampling.stop)
        self._prompt_tokens = 0
        self._pending_ids: list[int] = []
        self._token_times: list[float] = []

    def taken(self) -> None:
        """A slot is free, and the request is in it."""
        self._scheduled_at = self._clock()

    def begin(self, prompt_tokens: int, context_tokens: int | None) -> EngineStart:
        """The start of the answer to a prompt of so many tokens.

        Raises:
            CallError: ``invalid_argument`` or ``resource_exhausted``: there is no room for an answer.
        """
        budget = self.request.kv_budget_tokens
        if not prompt_tokens:
            raise _bad_prompt(self.request, "the prompt has no tokens", "empty")
        if context_tokens is not None and prompt_tokens >= context_tokens:
            said = (
                f"the prompt takes {prompt_tokens} tokens and the model's context holds {context_tokens} "
                "per call; shorten the prompt"
            )
            raise _bad_prompt(self.request, said, "too long")
        refuse_over_budget(self.request, prompt_tokens)
        room = [limit - prompt_tokens for limit in (context_tokens, budget) if limit is not None]
        self.limit = min(self.request.max_tokens, *room) if room else self.request.max_tokens
        self._prompt_tokens = prompt_tokens
        return self.start(prompt_tokens)

    def feed(self, token: int) -> Iterator[EngineEvent]:
        """The events one token makes, often one."""
        now = self._clock()
        self._token_times.append(now)
        if token in self._ends:
            yield from self._finish("", "stop", now)
            return
        self._pending_ids.append(token)
        shown = self._stops.feed(self._detokenizer.feed(token))
        if self._stops.hit:
            yield from self._finish(shown, "stop", now)
        elif len(self._token_times) >= self.limit:
            yield from self._finish(shown, "length", now)
        elif shown:
            yield self._delta(shown, now)

    def _finish(self, shown: str, reason: FinishReason, now: float) -> Iterator[EngineEvent]:
        if not self._stops.hit:
            shown += self._stops.feed(self._detokenizer.flush())
        if not self._stops.hit:
            shown += self._stops.flush()
        if shown or self._pending_ids:
            yield self._delta(shown, now)
        yield self._end("stop" if self._stops.hit else reason, now)

    def _delta(self, text: str, now: float) -> EngineDelta:
        ids, self._pending_ids = self._pending_ids, []
        return self.delta(text, ids, now=now)

    def _end(self, reason: FinishReason, now: float, error: EventError | None = None) -> EngineEnd:
        counted = len(self._token_times)
        self.usage = EventUsage(prompt_tokens=self._prompt_tokens, completion_tokens=counted)
        return super()._end(reason, now, error)

    def _metrics(self, now: float) -> EventMetrics:
        first = self._token_times[0] if self._token_times else now
        gaps = [(b - a) * 1000 for a, b in zip(self._token_times, self._token_times[1:], strict=False)]
        gap_ms = sum(gaps) / len(gaps) if gaps else 0.0
        return EventMetrics(
            ttft_ms=(first - self._queued_at) * 1000,
            tbt_ms=gap_ms,
            tpot_ms=gap_ms,
            throughput_tps=1000 / gap_ms if gap_ms else self._whole_rate(now),
            peak_mem_mb=peak_mem_mb(),
            kv_used_tokens=self._prompt_tokens + len(self._token_times),
            itl_list=gaps,
            timestamps=EventTimestamps(
                queued_at=self._queued_at,
                scheduled_at=self._scheduled_at,
                executed_at=first,
                completed_at=now,
            ),
        )

    def _whole_rate(self, now: float) -> float:
        # A single token has no gap to measure: its rate is that of the whole answer.
        spent_s = now - self._scheduled_at
        return len(self._token_times) / spent_s if spent_s > 0 else 0.0


def _bad_prompt(request: EngineRequest, said: str, reason: str) -> CallError:
    field = "prompt" if request.messages is None else "messages"
    details = [{"path": [field], "reason": reason}]
    return CallError(said, ErrorCode.INVALID_ARGUMENT, details=details)
