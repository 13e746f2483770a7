"""What every engine is: a source of events, and over it a stream of text for authors.

An adapter implements ``generate`` and ``close``; all else stands here.  The contract of ``generate``, which
``penstock.testing.check_engine`` checks:

- A request that cannot be served (bad values, a prompt too long) raises a ``CallError`` before any event.
- Otherwise come one ``EngineStart``, the ``EngineDelta`` pieces, and exactly one ``EngineEnd``, which is the
  last.  A failure after the start is an end with ``finish_reason="error"``.
- Closing the iterator is the cancel.  When ``aclose()`` returns, the work has stopped and its slot is free.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any, TypedDict

import msgspec
from msgspec import UNSET
from typing_extensions import Self, Unpack

from penstock.calls import ambient
from penstock.calls.engine_cache import EngineCache, KVNeed
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import (
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineRequest,
    EngineStart,
    EventError,
    Sampling,
)

_CODES = frozenset(code.value for code in ErrorCode)
_TEMPLATE_TOKENS = 64  # what a chat template says by itself, such as a system prompt


class SamplingOptions(TypedDict, total=False):
    """How tokens are chosen, as keyword arguments; what is left out or ``None`` is the engine's default."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repeat_penalty: float | None


class Engine(ABC):
    """A model that answers requests with a stream of events.

    One engine serves several calls at once, ``capacity`` of them at the same time, from any event loop.
    """

    engine_id: str
    """Names this engine in its events, such as ``llamacpp:smollm2-135m``."""

    model: str
    """The model it serves: what ``EngineRequest.model`` is when an author does not say."""

    capacity: int
    """How many generations run at the same time; the permits an executor should give out."""

    kv: EngineCache | None = None
    """Its KV cache; None where that is another server's to manage, or its size is not known."""

    @abstractmethod
    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Answer one request with a start, deltas and exactly one end (protocol v0.1, StreamEvent).

        Raises:
            CallError: ``invalid_argument`` or ``unavailable``, before the first event.
        """

    def kv_need(self, request: EngineRequest) -> KVNeed | None:
        """Return the room in the KV cache that a request may need; None for an engine without one."""
        if self.kv is None:
            return None
        bound = _prompt_bound(request)
        return self.kv.need(request.request_id, bound, request.max_tokens, request.kv_budget_tokens)

    def room(self, request: EngineRequest) -> AbstractAsyncContextManager[KVNeed | None]:
        """Return a context in which there is room in the KV cache for a request; adapters generate in it.

        Raises:
            CallError: ``resource_exhausted``: there is none, and too many wait for it, or waiting is no use.
        """
        need = self.kv_need(request)
        return nullcontext() if self.kv is None or need is None else self.kv.hold(need)

    @abstractmethod
    def close(self) -> None:
        """Cancel what is in flight, wait until it has stopped, free the model.  May be called twice."""

    async def aclose(self) -> None:
        """Like ``close``, without holding the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def stream_text(
        self,
        prompt: str,
        *,
        max_tokens: int = 256,
        system_prompt: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerator[str, None]:
        """Answer a prompt piece by piece, as the model's user would ask it (its chat template is applied).

        Args:
            prompt: The user's message.
            max_tokens: Most tokens to generate.
            system_prompt: What the model is told beforehand.
            sampling: ``temperature``, ``top_p``, ``top_k``, ``seed``, ``stop``, penalties.

        Raises:
            CallError: The engine refused, failed, or broke off; never a silent end.
        """
        return self.chat(conversation(prompt, system_prompt), max_tokens=max_tokens, **sampling)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = 256,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerator[str, None]:
        """Answer a conversation piece by piece.

        Args:
            messages: Role and content of each message, in OpenAI's shape.
            max_tokens: Most tokens to generate.
            sampling: As for ``stream_text``.

        Raises:
            CallError: As for ``stream_text``.
        """
        return self._text_of(self._request(messages, max_tokens, sampling))

    def chat_pieces(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = 256,
        tools: Sequence[Mapping[str, Any]] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncGenerator[EngineDelta, None]:
        """Answer a conversation, with what comes beside the text: reasoning, and calls of tools.

        Args:
            messages: As for ``chat``; also those that hold calls of tools and what came of them.
            max_tokens: Most tokens to generate.
            tools: What the model may call, in OpenAI's shape.
            response_format: What the answer must look like, in OpenAI's shape.
            sampling: As for ``stream_text``.

        Raises:
            CallError: As for ``stream_text``; ``not_implemented`` for what the engine cannot do.
        """
        request = self._request(messages, max_tokens, sampling)
        return self._pieces_of(
            msgspec.structs.replace(
                request,
                tools=tuple(dict(tool) for tool in tools) if tools else None,
                response_format=dict(response_format) if response_format else None,
            )
        )

    def text_pieces(
        self, prompt: str, *, max_tokens: int = 256, **sampling: Unpack[SamplingOptions]
    ) -> AsyncGenerator[EngineDelta, None]:
        """Continue a text as it stands, without a chat template; the rest as for ``chat_pieces``."""
        request = self._request((), max_tokens, sampling)
        return self._pieces_of(msgspec.structs.replace(request, messages=None, prompt=prompt))

    def _request(
        self, messages: Sequence[Mapping[str, Any]], max_tokens: int, options: SamplingOptions
    ) -> EngineRequest:
        call = ambient.current.get()
        request_id = uuid.uuid4().hex if call is None else call.request_id
        return EngineRequest(
            request_id=request_id,
            trace_id=request_id,
            model=self.model,
            max_tokens=max_tokens,
            messages=tuple(dict(message) for message in messages),
            sampling=to_sampling(options),
        )

    async def _text_of(self, request: EngineRequest) -> AsyncGenerator[str, None]:
        async with aclosing(self.generate(request)) as events:
            async for event in events:
                if type(event) is EngineDelta:
                    if event.chunk:
                        yield event.chunk
                elif self._ends(event):
                    return
        raise self._unfinished()

    async def _pieces_of(self, request: EngineRequest) -> AsyncGenerator[EngineDelta, None]:
        async with aclosing(self.generate(request)) as events:
            async for event in events:
                if type(event) is EngineDelta:
                    yield event
                elif self._ends(event):
                    return
        raise self._unfinished()

    def _ends(self, event: EngineEvent) -> bool:
        """Whether ``event`` ends the answer well.

        Raises:
            CallError: The answer failed, or this is no event.
        """
        if type(event) is EngineEnd:
            report_end(event)
            raise_if_failed(event)
            return True
        if type(event) is not EngineStart:
            raise _broken(self, f"sent a {type(event).__name__} where an event was due")
        return False

    def _unfinished(self) -> CallError:
        return _broken(self, "ended its stream without an end event; the answer may be incomplete")


def conversation(prompt: str, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """Turn a prompt into the messages of a conversation that begins with it."""
    user = {"role": "user", "content": prompt}
    return [user] if system_prompt is None else [{"role": "system", "content": system_prompt}, user]


def to_sampling(options: SamplingOptions) -> Sampling:
    """Turn keyword arguments into ``Sampling``; one stop string may stand for a list of one.

    Raises:
        TypeError: A name that is not a sampling option.
    """
    unknown = options.keys() - SamplingOptions.__annotations__.keys()
    if unknown:
        known = ", ".join(SamplingOptions.__annotations__)
        raise TypeError(f"unknown sampling option {min(unknown)!r}; known are {known}")
    stop = options.get("stop") or ()
    rest = {name: value for name, value in options.items() if name != "stop"}
    return Sampling(stop=(stop,) if isinstance(stop, str) else tuple(stop), **rest)  # type: ignore[arg-type]


def report_end(end: EngineEnd) -> None:
    """Give what an engine tells of its generation to the call this code runs in, if it runs in one."""
    call = ambient.current.get()
    if call is not None:
        call.report(end.report())


def raise_if_failed(end: EngineEnd) -> None:
    """Raise what a failed end says as a ``CallError``; one without a known code is ``upstream_failed``."""
    if end.finish_reason != "error":
        return
    if end.error is None:
        raise CallError(f"{end.engine_id} failed and did not say why", ErrorCode.UPSTREAM_FAILED)
    known = end.error.code in _CODES
    code = end.error.code if known else ErrorCode.UPSTREAM_FAILED
    details = () if end.error.details is UNSET else end.error.details
    raise CallError(end.error.message, code, retryable=end.error.retryable, details=details)


def error_event(error: CallError) -> EventError:
    """Return what the end of an answer says of ``error``."""
    return EventError(
        code=error.code.value,
        message=error.message,
        retryable=error.retryable,
        details=[dict(part) for part in error.details] or UNSET,
    )


def unix_clock() -> Callable[[], float]:
    """Return a clock of Unix seconds that never goes back: the time of day may jump."""
    offset = time.time() - time.perf_counter()
    return lambda: offset + time.perf_counter()


def refuse_invalid(request: EngineRequest) -> None:
    """Refuse values outside the limits of protocol v0.1 (Request); a temperature of 0 is allowed: greedy.

    Raises:
        CallError: ``invalid_argument``, naming the field and its limit.
    """
    sampling = request.sampling
    if request.max_tokens < 1:
        _refuse("max_tokens", "must be at least 1", request.max_tokens)
    if request.kv_budget_tokens is not None and request.kv_budget_tokens < 1:
        _refuse("kv_budget_tokens", "must be at least 1", request.kv_budget_tokens)
    if sampling.temperature is not None and not 0 <= sampling.temperature <= 2:
        _refuse("temperature", "must be from 0 to 2", sampling.temperature)
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        _refuse("top_p", "must be above 0 and at most 1", sampling.top_p)
    if sampling.top_k is not None and sampling.top_k < 0:
        _refuse("top_k", "must be 0 (off) or more", sampling.top_k)
    if "" in sampling.stop:
        _refuse("stop", "must not hold an empty string", "")
    if request.messages is not None and not request.messages:
        _refuse("messages", "must hold at least one message", [])


def refuse_over_budget(request: EngineRequest, prompt_tokens: int) -> None:
    """Refuse a prompt that leaves nothing of ``kv_budget_tokens`` for an answer.

    Raises:
        CallError: ``resource_exhausted``.
    """
    budget = request.kv_budget_tokens
    if budget is not None and prompt_tokens >= budget:
        raise CallError(
            f"the prompt takes {prompt_tokens} tokens and kv_budget_tokens is {budget}: nothing is left for "
            "an answer; shorten the prompt or raise the budget",
            ErrorCode.RESOURCE_EXHAUSTED,
            retryable=False,
        )


def _prompt_bound(request: EngineRequest) -> int:
    """Return a number of tokens that the prompt does not exceed: none is less than a byte, and what a chat
    template adds to a message is shorter than the message's JSON around it."""
    if request.messages is None:
        return len(request.prompt.encode(errors="replace")) + _TEMPLATE_TOKENS
    return len(msgspec.json.encode(request.messages)) + _TEMPLATE_TOKENS


def _refuse(field: str, rule: str, value: object) -> None:
    raise CallError(
        f"{field}: {rule}, not {value!r}",
        ErrorCode.INVALID_ARGUMENT,
        details=[{"path": [field], "reason": rule}],
    )


def _broken(engine: Engine, what: str) -> CallError:
    return CallError(f"{engine.engine_id} {what}", ErrorCode.UPSTREAM_FAILED)
