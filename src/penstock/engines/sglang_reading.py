"""What SGLang's native stream says, made into the events of one generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.engines.sglang_text import Changed, Growing, Ids
from penstock.engines.upstream import faults
from penstock.engines.upstream.reading import Reading
from penstock.errors import CallError
from penstock.protocol.codec import SseEvent
from penstock.protocol.events import EngineEvent, EngineRequest, EventUsage, FinishReason

_DONE = b"[DONE]"
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class _Meta(msgspec.Struct):
    id: str = ""
    finish_reason: dict[str, Any] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class _Event(msgspec.Struct):
    text: str | None = None
    output_ids: msgspec.Raw = msgspec.Raw()
    meta_info: _Meta | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Event)


class SGLangReading(Reading):
    """Reads ``POST /generate``."""

    def __init__(self, request: EngineRequest, engine_id: str) -> None:
        super().__init__(request, engine_id)
        self.rid = ""
        """By which id the server knows the generation."""
        self._growing = Growing(request.sampling.stop)
        self._pending: list[int] = []

    def read(self, event: SseEvent) -> Sequence[EngineEvent]:
        """See ``Reading.read``; ``[DONE]`` is its last word, and so is a finish reason."""
        if event.data == _DONE:
            self.over = True
            return ()
        told = self._decode(event.data)
        meta = told.meta_info
        if told.error is not None or meta is None:
            raise self._refused(event.data)
        if meta.id and meta.id != self.rid:
            raise self._garbled("answers another request than the one it was sent")
        events: list[EngineEvent] = (
            [] if self.begun or _has_failed(meta) else [self.start(meta.prompt_tokens)]
        )
        events += self._new(told, meta)
        if meta.finish_reason is not None:
            self._finish(meta, meta.finish_reason)
        return events

    def _decode(self, data: bytes) -> _Event:
        try:
            return _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._garbled(f"sent an event that cannot be read ({error})") from None

    def _new(self, told: _Event, meta: _Meta) -> list[EngineEvent]:
        text, ids, count = told.text or "", Ids(bytes(told.output_ids)), meta.completion_tokens
        try:
            if meta.finish_reason is None:
                shown, fresh = self._growing.feed(text, ids, count)
            else:
                shown, fresh = self._growing.end(text, ids, count, meta.finish_reason.get("matched"))
        except Changed as error:
            raise self._garbled(f"contradicts itself: {error}") from None
        self._pending += fresh
        if not shown and (meta.finish_reason is None or not self._pending):
            return []
        pending, self._pending = self._pending, []
        return [self.delta(shown, pending)]

    def _finish(self, meta: _Meta, reason: dict[str, Any]) -> None:
        self.over = True
        self.usage = EventUsage(
            prompt_tokens=meta.prompt_tokens,
            completion_tokens=meta.completion_tokens,
            cached_tokens=meta.cached_tokens,
        )
        kind = str(reason.get("type", ""))
        if kind not in _REASONS:
            raise self._aborted(reason)
        self.raw_finish_reason, self.finish_reason = kind, _REASONS[kind]

    def _aborted(self, reason: dict[str, Any]) -> CallError:
        status = reason.get("status_code")
        message = reason.get("message")
        told = faults.Told(
            message if isinstance(message, str) else "", "", status if isinstance(status, int) else 500
        )
        return faults.of_told(self.engine_id, told)

    def _refused(self, data: bytes) -> CallError:
        """SGLang answers 200 before it has looked at the request: what it finds comes as an event."""
        told = faults.told_in(data)
        if told is None:
            return self._garbled("sent an event that is none of its own")
        self.over = True
        if not self.begun and told.status is None and not told.kind:
            told = told._replace(status=400)
        return faults.of_told(self.engine_id, told)

    def _garbled(self, what: str) -> CallError:
        return faults.garbled(self.engine_id, what)


def _has_failed(meta: _Meta) -> bool:
    return meta.finish_reason is not None and meta.finish_reason.get("type") not in _REASONS
