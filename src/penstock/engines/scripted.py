"""An engine that says what it is told to: for tests, demos and benchmarks.

It is deterministic: the same script gives the same events, but for the times in the metrics.  Faults are
part of the script, because what matters about a server is what it does when the model misbehaves.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, cast, get_args

import msgspec

from penstock.calls.caches import CACHES
from penstock.calls.engine_cache import EngineCache, KVNeed
from penstock.engines.base import Engine, refuse_invalid, refuse_over_budget
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

Fault = Literal["stall", "fail", "ignore_cancel", "cut", "junk"]

STORY = (
    "Once upon a time a small fox lived at the edge of a wide river. Every morning she counted the boats "
    "that passed, and every evening she told the owl how many there had been."
)

# A stream that is always ready would never let the event loop run; this often it steps aside.
_BREATH = 256

_SPEC_NAMES = ("text", "tokens", "delay_ms", "burst", "fault", "after", "capacity", "kv_tokens")


class ScriptedEngine(Engine):
    """Yields the given pieces, one token each, or ``tokens`` copies of one piece.

    Args:
        pieces: What it says, one piece per token; a text is split at its spaces.
        tokens: Instead of ``pieces``: how many tokens to say.
        delay_s: Seconds before each burst.
        burst: How many tokens come at once after a delay.
        fault: What goes wrong after ``after`` tokens: ``stall`` waits for ever (until cancelled), ``fail``
            ends with an error, ``cut`` ends without an end event, ``junk`` yields what is no event,
            ``ignore_cancel`` works on after a cancel until ``release()``.
        after: How many tokens come before the fault.
        capacity: How many generations it takes at the same time; it does not enforce it.
        kv_tokens: How many tokens of prompts and answers its KV cache holds; 0 is no cache.  A word of a
            prompt is a token.
        sleep: Stands in for ``asyncio.sleep`` in tests.
        clock: Stands in for ``time.time``, in Unix seconds.
    """

    def __init__(
        self,
        pieces: str | Iterable[str] | None = None,
        *,
        tokens: int | None = None,
        delay_s: float = 0.0,
        burst: int = 1,
        fault: Fault | None = None,
        after: int = 0,
        capacity: int = 1024,
        kv_tokens: int = 0,
        engine_id: str = "scripted",
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.engine_id = engine_id
        self.model = "scripted"
        self.capacity = capacity
        self.started = 0
        self.finished = 0
        self.cancelled = 0
        self._pieces = (
            ("token ",) * tokens if tokens is not None else _split(STORY if pieces is None else pieces)
        )
        self._delay_s = delay_s
        self._burst = max(1, burst)
        self._fault = fault
        self._after = after
        self._sleep = sleep
        self._clock = clock
        self._closed = False
        if kv_tokens:
            self.kv = EngineCache(engine_id, kv_tokens)
            CACHES.add(self.kv)
        self._released = asyncio.Event()

    @classmethod
    def from_spec(cls, rest: str) -> ScriptedEngine:
        """Build one from the text behind ``scripted:``: ``tokens=256,delay_ms=20,fault=stall,after=10``.

        The names are those of the arguments, with ``text`` (without commas) for ``pieces``.

        Raises:
            CallError: ``invalid_argument``: a name or value it does not know.
        """
        pairs = dict(_pair(part) for part in rest.split(",") if part)
        fault = pairs.get("fault")
        if fault is not None and fault not in get_args(Fault):
            raise _bad_spec(f"fault is one of {', '.join(get_args(Fault))}, not {fault!r}")
        return cls(
            pairs.get("text"),
            tokens=_number(pairs, "tokens", 0) if "tokens" in pairs else None,
            delay_s=_number(pairs, "delay_ms", 0) / 1000,
            burst=_number(pairs, "burst", 1),
            fault=cast("Fault | None", fault),
            after=_number(pairs, "after", 0),
            capacity=_number(pairs, "capacity", 1024),
            kv_tokens=_number(pairs, "kv_tokens", 0),
        )

    @property
    def running(self) -> int:
        """How many generations are under way."""
        return self.started - self.finished - self.cancelled

    def release(self) -> None:
        """Let a generation that ignores its cancel stop."""
        self._released.set()

    def close(self) -> None:
        """Take no more requests; what is under way runs to its end."""
        self._closed = True
        if self.kv is not None:
            CACHES.remove(self.kv)
            self.kv.close()

    async def aclose(self) -> None:
        """Like ``close``; there is nothing to wait for."""
        self.close()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Say the script once; it cannot call tools, nor answer in a form that is asked for."""
        refuse_invalid(request)
        if request.tools or request.response_format:
            raise CallError(
                f"{self.engine_id}: a script has no tools and no response_format; leave them out",
                ErrorCode.NOT_IMPLEMENTED,
            )
        if self._closed:
            raise CallError(f"{self.engine_id} is closed", ErrorCode.UNAVAILABLE)
        prompt = _prompt(request).split()
        refuse_over_budget(request, len(prompt))
        async with self.room(request) as room:
            self._allocate(room, request, prompt)
            self.started += 1
            over = False
            try:
                rid, tid, eid = request.request_id, request.trace_id, self.engine_id
                queued_at = executed_at = self._clock()
                yield EngineStart(request_id=rid, trace_id=tid, engine_id=eid, prompt_tokens=len(prompt))
                pieces, reason = self._script(request, len(prompt))
                # One comparison per token is all the pacing costs: this loop measures what is around it.
                pause_at, step = 0, self._burst if self._delay_s else _BREATH
                for index, piece in enumerate(pieces):
                    if index == pause_at:
                        pause_at += step
                        await self._pause(index)
                        executed_at = executed_at if index else self._clock()
                    yield EngineDelta(
                        request_id=rid, trace_id=tid, engine_id=eid, chunk=piece, chunk_tokens=[index]
                    )
                if self._fault == "stall":
                    await asyncio.Event().wait()
                elif self._fault == "junk":
                    yield cast("EngineEvent", {"event": "gibberish"})
                if self._fault != "cut":
                    metrics = _metrics(queued_at, executed_at, self._clock(), len(prompt), len(pieces))
                    yield self._end(request, pieces, reason, self._with_cache(metrics, room, len(prompt)))
                over = True
            finally:
                await self._stopped(over)

    def _allocate(self, room: KVNeed | None, request: EngineRequest, prompt: Sequence[str]) -> None:
        """Allocate room; what it says itself is no part of its cache."""
        if self.kv is not None and room is not None:
            most = self.kv.fitting(len(prompt), request.max_tokens, request.kv_budget_tokens)
            room.allocate(most, [zlib.crc32(word.encode(errors="replace")) for word in prompt])

    def _with_cache(self, metrics: EventMetrics, room: KVNeed | None, prompt_tokens: int) -> EventMetrics:
        if self.kv is None or room is None or room.handle is None:
            return metrics
        room.computed = True
        cached = room.handle.reused_tokens
        self.kv.told(prompt_tokens, cached)
        rate = cached / prompt_tokens if prompt_tokens else 0.0
        return msgspec.structs.replace(metrics, prefix_hit_rate=rate)

    def _script(self, request: EngineRequest, prompt_tokens: int) -> tuple[Sequence[str], FinishReason]:
        pieces: Sequence[str] = self._pieces
        reason: FinishReason = "stop"
        if request.sampling.stop:
            pieces = _cut_at(pieces, request.sampling.stop)
        budget = request.kv_budget_tokens
        most = request.max_tokens if budget is None else min(request.max_tokens, budget - prompt_tokens)
        if len(pieces) > most:
            pieces, reason = pieces[:most], "length"
        if self._fault not in (None, "ignore_cancel"):
            pieces = pieces[: self._after]
        return pieces, reason

    async def _pause(self, index: int) -> None:
        if self._delay_s:
            await self._sleep(self._delay_s)
        elif index:
            await asyncio.sleep(0)

    def _end(
        self, request: EngineRequest, pieces: Sequence[str], reason: FinishReason, metrics: EventMetrics
    ) -> EngineEnd:
        failed = self._fault == "fail"
        said = f"{self.engine_id} failed after {len(pieces)} tokens, as its script says"
        return EngineEnd(
            request_id=request.request_id,
            trace_id=request.trace_id,
            engine_id=self.engine_id,
            output_text="".join(pieces),
            output_tokens=list(range(len(pieces))),
            finish_reason="error" if failed else reason,
            metrics=metrics,
            error=EventError(code=ErrorCode.UPSTREAM_FAILED.value, message=said) if failed else None,
            usage=EventUsage(
                prompt_tokens=metrics.kv_used_tokens - len(pieces), completion_tokens=len(pieces)
            ),
        )

    async def _stopped(self, over: bool) -> None:
        if not over and self._fault == "ignore_cancel":
            while not self._released.is_set():
                with suppress(asyncio.CancelledError):
                    await self._released.wait()
        if over:
            self.finished += 1
        else:
            self.cancelled += 1


def _metrics(
    queued_at: float, executed_at: float, completed_at: float, prompt_tokens: int, tokens: int
) -> EventMetrics:
    decode_s = completed_at - executed_at
    return EventMetrics(
        ttft_ms=(executed_at - queued_at) * 1000,
        tpot_ms=decode_s * 1000 / tokens if tokens else 0.0,
        throughput_tps=tokens / decode_s if decode_s > 0 else 0.0,
        peak_mem_mb=0,
        kv_used_tokens=prompt_tokens + tokens,
        timestamps=EventTimestamps(
            queued_at=queued_at, scheduled_at=queued_at, executed_at=executed_at, completed_at=completed_at
        ),
    )


def _split(pieces: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(re.findall(r"\s*\S+|\s+$", pieces) if isinstance(pieces, str) else pieces)


def _cut_at(pieces: Sequence[str], stops: Sequence[str]) -> Sequence[str]:
    text = "".join(pieces)
    left = min((at for at in map(text.find, stops) if at >= 0), default=len(text))
    kept: list[str] = []
    for piece in pieces:
        if not left:
            break
        kept.append(piece[:left])
        left -= len(kept[-1])
    return tuple(kept)


def _prompt(request: EngineRequest) -> str:
    if request.messages is None:
        return request.prompt
    return " ".join(str(message.get("content", "")) for message in request.messages)


def _bad_spec(what: str) -> CallError:
    return CallError(f"scripted: {what}", ErrorCode.INVALID_ARGUMENT)


def _pair(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if name not in _SPEC_NAMES or not equals:
        raise _bad_spec(f"{part!r} is not NAME=VALUE with one of {', '.join(_SPEC_NAMES)}")
    return name, value


def _number(pairs: dict[str, str], name: str, default: int) -> int:
    text = pairs.get(name)
    if text is None:
        return default
    if not text.isdecimal():
        raise _bad_spec(f"{name} is a whole number, not {text!r}")
    return int(text)


def open_scripted(rest: str, **options: Any) -> ScriptedEngine:
    """Open ``scripted:REST``: either a script in the spec, or arguments of ``ScriptedEngine`` by keyword.

    Raises:
        CallError: ``invalid_argument``: a name or value it does not know, or both forms at once.
    """
    if rest and options:
        raise _bad_spec("give the script in the spec or as keyword arguments, not both")
    return ScriptedEngine.from_spec(rest) if rest else ScriptedEngine(**options)
