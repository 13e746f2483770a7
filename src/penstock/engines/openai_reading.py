"""What a server that speaks OpenAI's protocol streams, for chats and for texts, read into events.

Read by structs of our own: the vendor's event objects cost 55 µs a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from penstock.engines.upstream import faults
from penstock.engines.upstream.reading import Reading
from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import SseEvent
from penstock.protocol.events import EngineEvent, EngineRequest, EventUsage, FinishReason

_LAST = b"[DONE]"

# Whatever is not named here is the model's own end, such as `stop`, `tool_calls`, `function_call`, `eos`.
_REASONS: Mapping[str, FinishReason] = {"length": "length", "max_tokens": "length", "model_length": "length"}
_FAILURES: Mapping[str, str] = {
    "content_filter": "left the rest of its answer out (content filter)",
    "abort": "stopped its answer itself",
    "error": "failed in its answer",
}


class _Piece(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    # vLLM, SGLang, DeepSeek and llama.cpp call it the one, Ollama and others the other.
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Piece | None = None
    text: str | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _AnswerDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _AnswerDetails | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class OpenAIReading(Reading):
    """Reads ``chat.completion.chunk`` and ``text_completion`` events.

    Args:
        request: What was asked.
        engine_id: Who answers.
        secrets: What no caller may read in an error.
    """

    def __init__(self, request: EngineRequest, engine_id: str, secrets: Sequence[str] = ()) -> None:
        super().__init__(request, engine_id)
        self._secrets = secrets
        self._id: str | None = None

    def read(self, event: SseEvent) -> Sequence[EngineEvent]:
        """See ``Reading.read``."""
        data = event.data
        if data == _LAST:
            self.over = True
            return ()
        chunk = self._chunk(data)
        events: list[EngineEvent] = [] if self.begun else [self.start()]
        if chunk.id and chunk.id != self._id:
            self._identify(chunk.id)
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage)
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._choose(choice, events)
        return events

    def _chunk(self, data: bytes) -> _Chunk:
        try:
            chunk = _decode(data)
        except faults.UNREADABLE:
            chunk = None
        if chunk is not None and chunk.error is None and chunk.object != "error":
            return chunk
        told = faults.told_in(data)
        if told is None:
            raise faults.garbled(self.engine_id, "sent an event that cannot be read")
        self.over = True
        raise faults.of_told(self.engine_id, told, self._secrets)

    def _identify(self, told: str) -> None:
        if self._id is not None:
            raise faults.garbled(self.engine_id, "mixed another answer into this one")
        self._id = told

    def _choose(self, choice: _Choice, events: list[EngineEvent]) -> None:
        piece = choice.delta
        if piece is None:
            if choice.text:
                events.append(self.delta(choice.text))
        else:
            text = piece.content or piece.refusal or ""
            thought = piece.reasoning_content or piece.reasoning or UNSET
            calls = piece.tool_calls or UNSET
            if text or thought is not UNSET or calls is not UNSET:
                events.append(self.delta(text, reasoning=thought, tool_calls=calls))
        if choice.finish_reason:
            self._finish(choice.finish_reason)

    def _finish(self, reason: str) -> None:
        self.raw_finish_reason = reason
        failure = _FAILURES.get(reason)
        if failure is None:
            self.finish_reason = _REASONS.get(reason, "stop")
        else:
            self.failure = CallError(
                f"{self.engine_id} {failure}",
                ErrorCode.UPSTREAM_FAILED,
                retryable=reason != "content_filter",
            )


def _usage(told: _Usage) -> EventUsage:
    prompt, answer = told.prompt_tokens_details, told.completion_tokens_details
    cached = None if prompt is None else prompt.cached_tokens
    reasoning = None if answer is None else answer.reasoning_tokens
    return EventUsage(
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.completion_tokens,
        cached_tokens=UNSET if cached is None else cached,
        reasoning_tokens=UNSET if reasoning is None else reasoning,
    )
