"""What Anthropic's Messages API streams, made into the events of one generation.

Read by structs of our own: the vendor's event objects cost some 55 µs a token.
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

# Whatever is not named here is the model's own end, such as `end_turn`, `stop_sequence` and `tool_use`.
_REASONS: Mapping[str, FinishReason] = {"max_tokens": "length", "model_context_window_exceeded": "length"}


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Event).decode


class AnthropicReading(Reading):
    """Reads the events of ``POST /v1/messages``.

    Args:
        request: What was asked.
        engine_id: Who answers.
        secrets: What no caller may read in an error.
    """

    def __init__(self, request: EngineRequest, engine_id: str, secrets: Sequence[str] = ()) -> None:
        super().__init__(request, engine_id)
        self._secrets = secrets
        self._tools: dict[int, int] = {}
        self._counts_told = _Usage()

    def read(self, event: SseEvent) -> Sequence[EngineEvent]:
        """See ``Reading.read``; events of kinds that are not known are passed over, as the API asks."""
        try:
            told = _decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise faults.garbled(self.engine_id, "sent an event that cannot be read") from None
        kind = told.type
        if kind == "content_block_delta" and told.delta is not None:
            return self._piece(told.index, told.delta)
        if kind == "message_start" and told.message is not None:
            return [self._begin(told.message)]
        if kind == "content_block_start" and told.content_block is not None:
            return self._block(told.index, told.content_block)
        if kind == "message_delta":
            self._count(told.usage)
            if told.delta is not None and told.delta.stop_reason is not None:
                self._finish(told.delta.stop_reason)
        elif kind == "message_stop":
            self.over = True
        elif kind == "error":
            raise self._failure(event.data)
        return ()

    def _begin(self, message: _Message) -> EngineEvent:
        if self.begun:
            raise faults.garbled(self.engine_id, "mixed another answer into this one")
        self._count(message.usage)
        return self.start(None if message.usage is None else self._prompt_tokens())

    def _block(self, index: int, block: _Block) -> Sequence[EngineEvent]:
        if block.type == "tool_use":
            number = self._tools[index] = len(self._tools)
            function = {"name": block.name or "", "arguments": ""}
            call = {"index": number, "id": block.id or "", "type": "function", "function": function}
            return self._delta("", tool_calls=[call])
        if block.text:
            return self._delta(block.text)
        return self._delta("", reasoning=block.thinking) if block.thinking else ()

    def _piece(self, index: int, piece: _Delta) -> Sequence[EngineEvent]:
        if piece.text:
            return self._delta(piece.text)
        if piece.thinking:
            return self._delta("", reasoning=piece.thinking)
        # Other blocks with JSON are tools that Anthropic runs itself.
        if piece.partial_json and index in self._tools:
            call = {"index": self._tools[index], "function": {"arguments": piece.partial_json}}
            return self._delta("", tool_calls=[call])
        return ()

    def _delta(self, text: str, **more: Any) -> Sequence[EngineEvent]:
        if not self.begun:
            raise faults.garbled(self.engine_id, "answered before it began")
        return [self.delta(text, **more)]

    def _count(self, usage: _Usage | None) -> None:
        """Counts are cumulative; what is not told stays as it was."""
        if usage is None:
            return
        counts = self._counts_told
        for name in _Usage.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(counts, name, value)
        self.usage = EventUsage(
            prompt_tokens=self._prompt_tokens(),
            completion_tokens=counts.output_tokens or 0,
            cached_tokens=UNSET if counts.cache_read_input_tokens is None else counts.cache_read_input_tokens,
        )

    def _prompt_tokens(self) -> int:
        counts = self._counts_told
        parts = (counts.input_tokens, counts.cache_creation_input_tokens, counts.cache_read_input_tokens)
        return sum(part or 0 for part in parts)

    def _finish(self, reason: str) -> None:
        self.raw_finish_reason = reason
        if reason == "refusal":
            said = f"{self.engine_id} left the rest of its answer out (refusal)"
            self.failure = CallError(said, ErrorCode.UPSTREAM_FAILED, retryable=False)
        else:
            self.finish_reason = _REASONS.get(reason, "stop")

    def _failure(self, data: bytes) -> CallError:
        self.over = True
        return faults.of_told(self.engine_id, faults.told_in(data) or faults.Told(), self._secrets)
