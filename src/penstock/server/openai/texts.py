"""`/v1/chat/completions` and `/v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, aclosing
from typing import Any

import msgspec

from penstock.calls.ids import new_id
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import SSE_KEEPALIVE
from penstock.protocol.dispatch import Dispatcher, FrameReader, LiveCall
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
from penstock.server.keepalive import KeepAlive
from penstock.server.once import Once
from penstock.server.openai.answers import Choice, chat_completion, text_completion, total_usage, usage_chunk
from penstock.server.openai.choices import Chosen, begun, chained, fault_of, reading, together
from penstock.server.openai.models import Model, find_model
from penstock.server.openai.transport import Transport
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
        dispatcher: Whose models they are.
        once: Opens the calls.
        keepalive: Looks after silent streams.
        tasks: Owns what reads several calls at once.
    """

    def __init__(self, dispatcher: Dispatcher, once: Once, keepalive: KeepAlive, tasks: TaskOwner) -> None:
        self._dispatcher = dispatcher
        self._once = once
        self._keepalive = keepalive
        self._tasks = tasks
        self._transport = Transport(once)

    async def chat(self, exchange: Exchange) -> None:
        """`POST /v1/chat/completions`: continue a conversation."""
        text, described = await exchange.json_body(), await self._dispatcher.describe()
        if await self._transport.answered(exchange, text, described, "/chat/completions"):
            return
        body = read_openai(text, ChatBody)
        model = find_model(described, body.model, "chat")
        asked = Asked(model, body, [body.input_for(model.input_schema)], body.choices())
        await self._run(exchange, text, asked)

    async def complete(self, exchange: Exchange) -> None:
        """`POST /v1/completions`: continue a text, or several."""
        text = await exchange.json_body()
        body = read_openai(text, CompletionBody)
        model = find_model(await self._dispatcher.describe(), body.model, "completion")
        inputs = [body.input_for(prompt, model.input_schema) for prompt in body.prompts()]
        if not 1 <= len(inputs) * body.choices() <= MAX_CHOICES:
            raise CallError(f"prompt: 1 to {MAX_CHOICES} choices at once", ErrorCode.INVALID_ARGUMENT)
        await self._run(exchange, text, Asked(model, body, inputs, body.choices()))

    async def _run(self, exchange: Exchange, text: bytes, asked: Asked) -> None:
        identity = ChunkForm(
            kind="chat" if asked.model.kind == "chat" else "completion",
            id=f"{_PREFIX[asked.model.kind]}-{new_id()}",
            model=asked.model.id,
            created=int(exchange.wall()),
            usage=_shows_usage(asked.body),
        )
        starts = _starts(asked, identity, timeout_of(exchange))
        calls = await self._once.open(exchange, text, *starts)
        identity = msgspec.structs.replace(identity, id=calls[0].task_id)  # it may be an answer begun before
        async with reading(exchange, calls) as readers, aclosing(together(readers, self._tasks)) as batches:
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
            pulses = [stack.enter_context(self._keepalive.watching(reader)) for reader in answer.readers]
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
