"""The commands that an engine serves with no code: what stands between a model and the calls of a project."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET
from pydantic import Field, GetPydanticSchema, PositiveInt, model_validator
from typing_extensions import NotRequired, Self, TypedDict

from penstock.calls.engine_cache import KVNeed
from penstock.engines.base import Engine, conversation, raise_if_failed, report_end
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import OpenAIKind
from penstock.protocol.events import UNBOUNDED, EngineDelta, EngineEnd, EngineEvent, EngineRequest
from penstock.protocol.inference import Request, StreamEvent, WireModel, request_to_engine
from penstock.runtime.context import current_call
from penstock.runtime.runtime import Runtime

Temperature: TypeAlias = Annotated[float, Field(ge=0, le=2)]
Penalty: TypeAlias = Annotated[float, Field(ge=-2, le=2)]
TopP: TypeAlias = Annotated[float, Field(gt=0, le=1)]
MAX_TOKENS = 256  # where a caller does not say; a chat then goes on until the model ends it
_PLAIN = 3  # keys of an item that holds nothing but text
EventItem: TypeAlias = Annotated[
    EngineEvent, GetPydanticSchema(lambda _, handler: handler.generate_schema(StreamEvent))
]


class TextItem(TypedDict):
    """A piece of an answer, as text commands yield it: all so far, the new part, whether that is all.

    What a model thinks and the tools it calls stand beside that where they come, piece by piece as well.
    """

    text: str
    chunk: str
    finished: bool
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]


class Turn(WireModel):
    """A message of a conversation: that of the protocol v0.1, and what calling tools needs beside it."""

    role: Literal["system", "user", "assistant", "function", "tool"]
    content: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is needed, unless the message calls tools")
        return self


def serve_engine(runtime: Runtime, engine: Engine) -> None:
    """Give a runtime the commands that an engine serves with no code: ``predict``, ``chat``, ``generate``.

    A name the author has taken stays the author's.  The engine is closed when the app stops.
    """
    runtime.on_close(engine.aclose)
    commands = EngineCommands(engine)
    served: Mapping[Callable[..., Any], OpenAIKind | None] = {
        commands.predict: None,
        commands.chat: "chat",
        commands.complete: "completion",
        commands.generate: None,
    }
    for function, openai in served.items():
        if function.__name__ not in runtime.commands:
            runtime.streaming_command(
                function.__name__,
                # More at once would only wait inside the engine, where nobody sees their place in the queue.
                concurrency=engine.capacity,
                openai=openai,
                model=engine.model if openai else None,
            )(function)
            runtime.set_needs(function.__name__, partial(commands.need, function.__name__))


class EngineCommands:
    """The commands of one engine; their signatures are the inputs callers may send."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def need(self, name: str, request_id: str, arguments: Mapping[str, Any]) -> KVNeed | None:
        """Return the room in the engine's KV cache that a call needs; its generation will use that."""
        kv = self._engine.kv
        need = None if kv is None else self._engine.kv_need(self._asked(name, request_id, arguments))
        return None if kv is None or need is None else kv.reserve(need)

    def _asked(self, name: str, request_id: str, given: Mapping[str, Any]) -> EngineRequest:
        """Return what a command asks of its engine, as far as it matters for its room."""
        if name == "generate":
            return msgspec.structs.replace(request_to_engine(given["request"]), request_id=request_id)
        messages: Sequence[dict[str, Any]] | None = None
        if name == "predict":
            messages = conversation(given["prompt"], given.get("system_prompt"))
        elif name == "chat":
            messages = [message.model_dump(exclude_none=True) for message in given["messages"]]
        return EngineRequest(
            request_id=request_id,
            trace_id=request_id,
            model=self._engine.model,
            prompt=given.get("prompt", ""),
            max_tokens=_bound(given.get("max_tokens", None if name == "chat" else MAX_TOKENS)),
            messages=None if messages is None else tuple(messages),
        )

    async def predict(
        self,
        prompt: str,
        system_prompt: str | None = None,
        max_tokens: PositiveInt = MAX_TOKENS,
        temperature: Temperature | None = None,
        top_p: TopP | None = None,
        stop: str | list[str] | None = None,
    ) -> AsyncIterator[TextItem]:
        """Answer a prompt piece by piece."""
        pieces = self._engine.chat_pieces(
            conversation(prompt, system_prompt),
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
        )
        async with aclosing(_growing(pieces)) as items:
            async for item in items:
                yield item

    async def chat(
        self,
        messages: Annotated[list[Turn], Field(min_length=1)],
        max_tokens: PositiveInt | None = None,
        temperature: Temperature | None = None,
        top_p: TopP | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        presence_penalty: Penalty | None = None,
        frequency_penalty: Penalty | None = None,
        tools: list[dict[str, Any]] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> AsyncIterator[TextItem]:
        """Continue a conversation piece by piece; `tools` and `response_format` are as OpenAI has them."""
        pieces = self._engine.chat_pieces(
            [message.model_dump(exclude_none=True) for message in messages],
            max_tokens=_bound(max_tokens),
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            seed=seed,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            tools=tools,
            response_format=response_format,
        )
        async with aclosing(_growing(pieces)) as items:
            async for item in items:
                yield item

    async def complete(
        self,
        prompt: Annotated[str, Field(min_length=1)],
        max_tokens: PositiveInt = MAX_TOKENS,
        temperature: Temperature | None = None,
        top_p: TopP | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        presence_penalty: Penalty | None = None,
        frequency_penalty: Penalty | None = None,
    ) -> AsyncIterator[TextItem]:
        """Continue a text as it stands, piece by piece."""
        pieces = self._engine.text_pieces(
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            seed=seed,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
        )
        async with aclosing(_growing(pieces)) as items:
            async for item in items:
                yield item

    async def generate(self, request: Request) -> AsyncIterator[EventItem]:
        """Answer a typed request with its events: start, deltas, end (protocol v0.1, StreamEvent).

        The events carry this server's request id, which is unique across callers; `trace_id` is the
        caller's own.
        """
        asked = msgspec.structs.replace(request_to_engine(request), request_id=current_call().request_id)
        async with aclosing(self._engine.generate(asked)) as events:
            async for event in events:
                yield event
                if type(event) is EngineEnd:
                    report_end(event)
                    raise_if_failed(event)
                    return
        raise CallError(
            f"{self._engine.engine_id} ended its stream without an end event; the answer may be incomplete",
            ErrorCode.UPSTREAM_FAILED,
        )


def _bound(max_tokens: int | None) -> int:
    """Return how long a chat's answer may be: whoever asks other servers for none is not cut off either."""
    return UNBOUNDED if max_tokens is None else max_tokens


async def _growing(pieces: AsyncGenerator[EngineDelta, None]) -> AsyncGenerator[TextItem, None]:
    text = ""
    async with aclosing(pieces):
        async for piece in pieces:
            chunk = piece.chunk
            text += chunk
            item: TextItem = {"text": text, "chunk": chunk, "finished": False}
            if piece.reasoning is not UNSET:
                item["reasoning"] = piece.reasoning
            if piece.tool_calls is not UNSET:
                item["tool_calls"] = piece.tool_calls
            if chunk or len(item) > _PLAIN:
                yield item
    yield {"text": text, "chunk": "", "finished": True}
