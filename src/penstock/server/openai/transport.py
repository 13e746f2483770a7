"""Models that speak OpenAI's API themselves: they take a request as text and give what is to be answered, as
Clarifai's ``OpenAIModelClass`` does by ``openai_transport`` and ``openai_stream_transport``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import SSE_KEEPALIVE
from penstock.protocol.depth import check_depth
from penstock.protocol.dispatch import Batch, Description
from penstock.protocol.messages import Start, WireForm
from penstock.protocol.openai_api.errors import openai_error
from penstock.server.exchange import Exchange
from penstock.server.keepalive import KeepAlive
from penstock.server.once import Once
from penstock.server.openai.choices import fault_of, reading
from penstock.server.openai.models import transports_of
from penstock.server.pump import SSE
from penstock.server.requests import timeout_of

Endpoint: TypeAlias = Literal["/chat/completions", "/responses", "/embeddings"]
"""What such a model is told of the route that was asked."""

_DONE = b"data: [DONE]\n\n"


class _Asked(msgspec.Struct):
    model: str = ""
    stream: bool | None = None


class _Fault(msgspec.Struct):
    """What such a model gives instead of an answer."""

    code: int
    description: str = ""
    details: str = ""


class Transport:
    """Hands requests on to such models.

    Args:
        once: Opens the calls.
        keepalive: Looks after silent streams.
    """

    def __init__(self, once: Once, keepalive: KeepAlive) -> None:
        self._once = once
        self._keepalive = keepalive

    async def answered(
        self, exchange: Exchange, body: bytes, described: Description, endpoint: Endpoint
    ) -> bool:
        """Answer a request if it is for such a model; returns whether it is.

        Raises:
            CallError: The model refused it, or failed.
        """
        whole, streamed = (transports_of(described, streaming=streaming) for streaming in (False, True))
        if not (whole or streamed):
            return False
        check_depth(body)
        try:
            asked = msgspec.json.decode(body, type=_Asked)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return False  # whoever reads it next says what is wrong with it
        command = (streamed if asked.stream else whole).get(asked.model)
        if command is None:
            return False
        message = msgspec.json.decode(body) | {"openai_endpoint": endpoint}
        start = Start(
            command=command,
            input=msgspec.json.encode({"msg": msgspec.json.encode(message).decode()}),
            is_stream=bool(asked.stream),
            timeout_s=timeout_of(exchange),
        )
        await (self._stream if asked.stream else self._whole)(exchange, body, start)
        return True

    async def _whole(self, exchange: Exchange, body: bytes, start: Start) -> None:
        [call] = await self._once.open(exchange, body, start)
        async with reading(exchange, [call]) as [reader]:
            async for batch in reader:
                if (fault := fault_of(batch)) is not None:
                    raise fault
                if batch.ending is not None:
                    [answer] = _said(batch)
                    await exchange.reply(200, answer)

    async def _stream(self, exchange: Exchange, body: bytes, start: Start) -> None:
        [call] = await self._once.open(exchange, body, start)
        async with reading(exchange, [call]) as [reader]:
            with self._keepalive.watching(reader) as pulse:
                async for batch in reader:
                    pulse.quiet = 0
                    if await self._write(exchange, batch):
                        return

    async def _write(self, exchange: Exchange, batch: Batch) -> bool:
        """Write what a batch adds; returns whether that was the end.  Until the model has said something its
        answer may still be a status."""
        events, fault = _events(batch)
        if not exchange.started and not events:
            if fault is not None:
                raise fault
            if batch.ending is None:
                return False
        over = fault is not None or batch.ending is not None
        if over:
            events += _DONE if fault is None else b"data: %b\n\n" % openai_error(fault)
        if not exchange.started:
            await exchange.start(200, SSE.headers)
        await exchange.outlet.write(events or SSE_KEEPALIVE, more=not over)
        return over


def _events(batch: Batch) -> tuple[bytes, CallError | None]:
    """Return what the model said as events, and what went wrong behind them."""
    events = b""
    try:
        for chunk in _said(batch):
            events += b"data: %b\n\n" % chunk
    except CallError as error:
        return events, error
    return events, fault_of(batch)


def _said(batch: Batch) -> Iterator[bytes]:
    """Yield what the model said, each on one line of JSON.

    Raises:
        CallError: ``upstream_failed``, in its own words; ``invalid_output``.
    """
    for line in batch.lines:
        if (item := WireForm.V2.data_of(line)) is not None:
            yield _checked(item)


def _checked(item: msgspec.Raw) -> bytes:
    try:
        said = msgspec.json.decode(msgspec.json.decode(item, type=str))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CallError(f"the model's answer is not JSON: {error}", ErrorCode.INVALID_OUTPUT) from error
    if isinstance(said, dict) and isinstance(said.get("code"), int) and "description" in said:
        fault = msgspec.convert(said, _Fault, strict=False)
        text = ": ".join(part for part in (fault.description, fault.details) if part)
        raise CallError(text or f"the model failed with code {fault.code}", ErrorCode.UPSTREAM_FAILED)
    return msgspec.json.encode(said)
