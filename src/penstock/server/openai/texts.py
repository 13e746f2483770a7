"""`/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, aclosing
from typing import Any

import msgspec

from penstock.calls.ids import new_id
from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import SSE_KEEPALIVE
from penstock.protocol.dispatch import FrameReader, LiveCall
from penstock.protocol.messages import Start
from penstock.protocol.openai_api.chunks import ChunkForm
from penstock.protocol.openai_api.errors import openai_error
from penstock.protocol.openai_api.requests import (
    MAX_CHOICES,
    ChatBody,
    CompletionBody,
    OpenAIBody,
    read_openai,
)
from penstock.server.exchange import Exchange
from penstock.server.openai.answers import Choice, chat_completion, text_completion, total_usage, usage_chunk
from penstock.server.openai.choices import Chosen, begun, chained, fault_of, reading, together
from penstock.server.openai.desk import Desk, Received
from penstock.server.openai.models import Model, find_model
from penstock.server.pump import SSE
from penstock.server.requests import timeout_of

_PREFIX = {"chat": "chatcmpl", "completion": "cmpl"}
_SHAPE = {"chat": "chat.completion.chunk", "completion": "text_completion"}
_WHOLE = {"chat": chat_completion, "completion": text_completion}
_DONE = b"data: [DONE]\n\n"


class Asked(msgspec.Struct, frozen=True):
    """A request for text, ready to be run.

    Attributes:
        inputs: One for each prompt.
        choices: Wanted of each.
    """

    model: Model
    body: OpenAIBody
    inputs: list[dict[str, Any]]
    choices: int


class Answer(msgspec.Struct, frozen=True):
    """An answer under way."""

    asked: Asked
    form: ChunkForm
    calls: Sequence[LiveCall]
    readers: Sequence[FrameReader]

    def usage(self) -> dict[str, Any] | None:
        """Return the counts of tokens, once all its calls have ended."""
        return total_usage([call.record().metrics or {} for call in self.calls], len(self.asked.inputs))

    def last_words(self) -> bytes:
        """Return what stands behind the last chunk of a stream."""
        if not self.form.usage:
            return _DONE
        identity = msgspec.structs.asdict(self.form)
        return _events([usage_chunk(identity, _SHAPE[self.form.kind], self.usage())]) + _DONE


class TextRoutes:
    """Answers requests for text.

    Args:
        desk: Takes them in.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def chat(self, exchange: Exchange) -> None:
        """`POST /v1/chat/completions`: continue a conversation."""
        received = await self._desk.received(exchange)
        if await self._desk.handed_on(exchange, received, "/chat/completions"):
            return
        body = read_openai(received.body, ChatBody)
        model = find_model(received.described, body.model, "chat")
        asked = Asked(model, body, [body.input_for(model.input_schema)], body.choices())
        await self._run(exchange, received, asked)

    async def complete(self, exchange: Exchange) -> None:
        """`POST /v1/completions`: continue a text, or several."""
        received = await self._desk.received(exchange)
        body = read_openai(received.body, CompletionBody)
        model = find_model(received.described, body.model, "completion")
        inputs = [body.input_for(prompt, model.input_schema) for prompt in body.prompts()]
        if not 1 <= len(inputs) * body.choices() <= MAX_CHOICES:
            raise CallError(f"prompt: 1 to {MAX_CHOICES} choices at once", ErrorCode.INVALID_ARGUMENT)
        await self._run(exchange, received, Asked(model, body, inputs, body.choices()))

    async def _run(self, exchange: Exchange, received: Received, asked: Asked) -> None:
        identity = ChunkForm(
            kind="chat" if asked.model.kind == "chat" else "completion",
            id=f"{_PREFIX[asked.model.kind]}-{new_id()}",
            model=asked.model.id,
            created=int(exchange.wall()),
            usage=_shows_usage(asked.body),
        )
        starts = _starts(asked, identity, timeout_of(exchange))
        calls = await self._desk.once.open(exchange, received.body, *starts)
        identity = msgspec.structs.replace(identity, id=calls[0].task_id)  # it may be an answer begun before
        async with (
            reading(exchange, calls) as readers,
            aclosing(together(readers, self._desk.tasks)) as batches,
        ):
            answer = self._stream if asked.body.stream else self._whole
            await answer(exchange, Answer(asked, identity, calls, readers), batches)

    async def _whole(self, exchange: Exchange, answer: Answer, batches: AsyncIterator[Chosen]) -> None:
        choices = [Choice() for _ in answer.calls]
        ended = 0
        async for index, batch in batches:
            if (fault := fault_of(batch)) is not None:
                raise fault
            for line in batch.lines:
                choices[index].take(line)
            ended += batch.ending is not None
        if ended == len(choices):  # else its client has left
            identity = msgspec.structs.asdict(answer.form)
            await exchange.reply(200, _WHOLE[answer.form.kind](identity, choices, answer.usage()))

    async def _stream(self, exchange: Exchange, answer: Answer, batches: AsyncIterator[Chosen]) -> None:
        first = await begun(batches)
        if not first:
            return
        await exchange.start(200, SSE.headers)
        open_choices = len(answer.calls)
        with ExitStack() as stack:
            pulses = [stack.enter_context(self._desk.keepalive.watching(reader)) for reader in answer.readers]
            async for index, batch in chained(first, batches):
                pulses[index].quiet = 0
                if (fault := fault_of(batch)) is not None:
                    await exchange.outlet.write(_events([*batch.lines[:-1], openai_error(fault)]), more=False)
                    return
                open_choices -= batch.ending is not None
                part = _events(batch.lines) or SSE_KEEPALIVE
                if not open_choices:
                    part += answer.last_words()
                await exchange.outlet.write(part, more=bool(open_choices))


def _starts(asked: Asked, form: ChunkForm, timeout_s: float | None) -> list[Start]:
    starts: list[Start] = []
    for given in asked.inputs:
        for _ in range(asked.choices):
            index = len(starts)
            seed = {"seed": given["seed"] + index} if index and "seed" in given else {}
            starts.append(
                Start(
                    command=asked.model.command,
                    input=msgspec.json.encode({**given, **seed}),
                    form=msgspec.structs.replace(form, index=index),
                    task_id=form.id if not index else f"{form.id}-{index}",
                    is_stream=True,
                    timeout_s=timeout_s,
                )
            )
    return starts


def _shows_usage(body: OpenAIBody) -> bool:
    return bool(body.stream and body.stream_options and body.stream_options.include_usage)


def _events(lines: Sequence[bytes]) -> bytes:
    return b"".join([b"data: %b\n\n" % line for line in lines])
