"""`/v1/embeddings`."""

from __future__ import annotations

import base64
from array import array
from typing import Any

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Batch
from penstock.protocol.messages import Start, WireForm
from penstock.protocol.openai_api.requests import EmbeddingBody, read_openai
from penstock.server.exchange import Exchange
from penstock.server.openai.choices import fault_of, reading
from penstock.server.openai.desk import Desk
from penstock.server.openai.models import find_model
from penstock.server.requests import timeout_of


class _Named(msgspec.Struct):
    embeddings: list[list[float]]


_decode = msgspec.json.Decoder(list[list[float]] | _Named).decode


class EmbeddingRoutes:
    """Answers requests for vectors.

    Args:
        desk: Takes them in.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def create(self, exchange: Exchange) -> None:
        """`POST /v1/embeddings`: turn texts into vectors."""
        received = await self._desk.received(exchange)
        if await self._desk.handed_on(exchange, received, "/embeddings"):
            return
        body = read_openai(received.body, EmbeddingBody)
        model = find_model(received.described, body.model, "embeddings")
        given = msgspec.json.encode(body.input_for(model.input_schema))
        start = Start(command=model.command, input=given, timeout_s=timeout_of(exchange))
        [call] = await self._desk.once.open(exchange, received.body, start)
        async with reading(exchange, [call]) as [reader]:
            async for batch in reader:
                if (fault := fault_of(batch)) is not None:
                    raise fault
                if batch.ending is not None:
                    vectors = _vectors(batch, len(body.texts()), model.command)
                    await exchange.reply(200, _answer(body, model.id, vectors, call.record().metrics or {}))


def _vectors(batch: Batch, wanted: int, command: str) -> list[list[float]]:
    data = WireForm.V2.data_of(batch.lines[-1])
    try:
        read = _decode(b"null" if data is None else data)
    except msgspec.MsgspecError as error:
        text = f"{command} answers no vectors: a list of lists of numbers, or that as `embeddings`"
        raise CallError(text, ErrorCode.INVALID_OUTPUT) from error
    vectors = read.embeddings if isinstance(read, _Named) else read
    if len(vectors) != wanted:
        raise CallError(
            f"{command} answers {len(vectors)} vectors for {wanted} texts", ErrorCode.INVALID_OUTPUT
        )
    return vectors


def _answer(body: EmbeddingBody, model: str, vectors: list[list[float]], metrics: Any) -> bytes:
    written = _as_base64 if body.encoding_format == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector)}
        for index, vector in enumerate(vectors)
    ]
    tokens = metrics.get("prompt_tokens", 0)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _as_base64(vector: list[float]) -> str:
    """Return numbers as little-endian floats of 4 bytes, as OpenAI's clients ask for them."""
    return base64.b64encode(array("f", vector).tobytes()).decode("ascii")
