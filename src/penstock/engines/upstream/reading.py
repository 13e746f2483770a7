"""What a server streams, made into the events of one generation: counted, timed, with exactly one end."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence

from msgspec import UNSET

from penstock.engines.answer import Answer
from penstock.engines.base import unix_clock
from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import SseEvent
from penstock.protocol.events import (
    EngineEnd,
    EngineEvent,
    EngineRequest,
    EngineStart,
    EventMetrics,
    EventTimestamps,
    FinishReason,
)


class Reading(Answer):
    """Reads one answer; an adapter says in ``read`` what its server's events mean.

    Args:
        request: What was asked.
        engine_id: Who answers.
        clock: Unix seconds, never going back.
    """

    def __init__(
        self, request: EngineRequest, engine_id: str, clock: Callable[[], float] | None = None
    ) -> None:
        super().__init__(request, engine_id, unix_clock() if clock is None else clock)
        self.finish_reason: FinishReason | None = None
        """Why the answer ended; set by ``read`` when the server says so.  Without one it was cut."""
        self.failure: CallError | None = None
        """Set by ``read`` instead of a reason: the server ended the answer, and not well."""
        self.over = False
        """Set by ``read`` when the server said its last, well or not: nothing more is due, or running."""

    @property
    def flowing(self) -> bool:
        """Whether something was generated already."""
        return bool(self._times)

    @abstractmethod
    def read(self, event: SseEvent) -> Sequence[EngineEvent]:
        """Make events of what the server sent: ``start`` once, ``delta`` for what was generated.

        Sets ``finish_reason``, ``usage`` and ``over`` when the server tells them.

        Raises:
            CallError: The server says that it failed, or what it sent cannot be read.
        """

    def start(self, prompt_tokens: int | None = None) -> EngineStart:
        """The one start event; an adapter makes it of the first thing that is no error."""
        self._scheduled_at = self._clock()
        return super().start(prompt_tokens)

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
        return self._end(self.finish_reason, self._clock())

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
