"""`/v1/responses`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from penstock.calls.ids import new_id
from penstock.protocol.call import State
from penstock.protocol.codec import SSE_KEEPALIVE
from penstock.protocol.dispatch import Batch, FrameReader
from penstock.protocol.messages import Start
from penstock.protocol.openai_api.requests import read_openai
from penstock.protocol.openai_api.responses import OPENING, ResponseBody, ResponseForm
from penstock.server.exchange import Exchange
from penstock.server.openai.choices import Chosen, begun, chained, fault_of, reading, together
from penstock.server.openai.desk import Desk
from penstock.server.openai.models import find_model
from penstock.server.pump import SSE
from penstock.server.requests import timeout_of


class _Event(msgspec.Struct):
    type: str
    response: msgspec.Raw = msgspec.Raw()


class _Text(msgspec.Struct):
    text: str


class _Message(msgspec.Struct):
    content: list[_Text]


class _Response(msgspec.Struct):
    output: list[_Message]


_event = msgspec.json.Decoder(_Event).decode
_response = msgspec.json.Decoder(_Response).decode


class ResponseRoutes:
    """Answers requests for responses.

    Args:
        desk: Takes them in.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def create(self, exchange: Exchange) -> None:
        """`POST /v1/responses`: answer once."""
        received = await self._desk.received(exchange)
        if await self._desk.handed_on(exchange, received, "/responses"):
            return
        body = read_openai(received.body, ResponseBody)
        model = find_model(received.described, body.model, "chat")
        form = ResponseForm(id=f"resp_{new_id()}", model=model.id, created=int(exchange.wall()))
        start = Start(
            command=model.command,
            input=msgspec.json.encode(body.input_for(model.input_schema)),
            form=form,
            task_id=form.id,
            is_stream=True,
            timeout_s=timeout_of(exchange),
        )
        calls = await self._desk.once.open(exchange, received.body, start)
        form = msgspec.structs.replace(form, id=calls[0].task_id)  # it may be a response begun before
        async with (
            reading(exchange, calls) as readers,
            aclosing(together(readers, self._desk.tasks)) as batches,
        ):
            if body.stream:
                await self._stream(exchange, form, readers[0], batches)
            else:
                await self._whole(exchange, batches)

    async def _whole(self, exchange: Exchange, batches: AsyncIterator[Chosen]) -> None:
        async for _, batch in batches:
            if (fault := fault_of(batch)) is not None:
                raise fault
            if batch.ending is not None:
                await exchange.reply(200, bytes(_event(batch.lines[-1]).response))

    async def _stream(
        self, exchange: Exchange, form: ResponseForm, reader: FrameReader, batches: AsyncIterator[Chosen]
    ) -> None:
        first = await begun(batches)
        if not first:
            return
        await exchange.start(200, SSE.headers)
        with self._desk.keepalive.watching(reader) as pulse:
            async for _, batch in chained(first, batches):
                pulse.quiet = 0
                part = b"".join(map(_sse, _with_context(form, batch))) or SSE_KEEPALIVE
                await exchange.outlet.write(part, more=batch.ending is None)


def _with_context(form: ResponseForm, batch: Batch) -> list[bytes]:
    """Return the events of a batch, and what this API says around them."""
    lines = list(batch.lines)
    if batch.ending is not None and batch.ending.state is State.COMPLETED:
        number = batch.first_seq + len(lines) - 1 + OPENING
        text = "".join(part.text for message in _whole_of(lines[-1]).output for part in message.content)
        lines[-1:-1] = map(msgspec.json.encode, form.closing(text, number))
    if lines and batch.first_seq == 0:
        lines[1:1] = map(msgspec.json.encode, form.opening())
    return lines


def _whole_of(line: bytes) -> _Response:
    return _response(_event(line).response)


def _sse(line: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (_event(line).type.encode(), line)
