"""Plays Anthropic's Messages API, as its public documentation has it: streams, whole answers, errors, pings.

A key comes as ``x-api-key`` or as a bearer token.  Version 2026-10-21 takes no sampling parameters, whatever
their values; 2023-06-01 takes them for models that know them.  Who leaves the connection stops the work:
that is the only cancel this API has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from engines.upstreams.gate import Worker
from engines.upstreams.server import Connection, Seen, Upstream

REQUEST = {"model", "max_tokens", "messages", "system", "stream", "temperature", "top_p", "top_k", "tools"}
REQUEST |= {"stop_sequences", "thinking", "metadata", "tool_choice"}
NO_SAMPLING = "2026-10-21"
VERSIONS = ("2023-06-01", NO_SAMPLING)
SAMPLING = {"temperature", "top_p", "top_k"}


class Block(NamedTuple):
    """A part of the answer: ``text``, ``thinking``, or ``tool_use`` (whose pieces are its input as JSON)."""

    kind: str
    pieces: Sequence[str]
    start: dict[str, Any] = {}  # noqa: RUF012 - never written to


DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class AnthropicServer(Upstream):
    """The server; ``workers`` are its answers, running or not."""

    def __init__(self) -> None:
        super().__init__()
        self.key = "sk-test"
        self.takes_temperature = True
        """Whether its models do."""
        self.workers: list[Worker] = []
        self.finished: list[Worker] = []
        self.blocks: list[Block] | None = None
        self.length = 200
        self.stop_reason = "end_turn"
        self.pings = True
        self.cached_tokens = 0

    @property
    def working(self) -> int:
        """How many answers are still being made."""
        return sum(not worker.stopped and worker not in self.finished for worker in self.workers)

    def is_call(self, seen: Seen) -> bool:
        return seen.path == "/v1/messages"

    async def answer(self, seen: Seen) -> None:
        connection = seen.connection
        if seen.path != "/v1/messages":
            await connection.reply(404, error_body("not_found_error", "Not found"))
        elif _key(seen) != self.key:
            await connection.reply(401, error_body("authentication_error", "invalid x-api-key"))
        elif fault := _mistake(seen, self.takes_temperature):
            await connection.reply(400, error_body("invalid_request_error", fault))
        else:
            await self._message(seen.json, connection)

    async def _message(self, asked: dict[str, Any], connection: Connection) -> None:
        prompt = _text_of(asked["messages"][-1]["content"])
        blocks = self.blocks or [Block("text", [f"{prompt}#{number} " for number in range(self.length)])]
        worker = Worker()
        self.workers.append(worker)
        connection.on_lost.append(worker.stop)
        await self.headers_gate.wait()
        if asked.get("stream"):
            await self._stream(asked, blocks, worker, connection)
        else:
            await connection.reply(200, json.dumps(self._whole(asked, blocks)).encode())
        self.finished.append(worker)

    async def _stream(
        self, asked: dict[str, Any], blocks: list[Block], worker: Worker, connection: Connection
    ) -> None:
        headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": "req_1"}
        await connection.start(200, headers)
        await connection.chunk(_event("message_start", message=self._head(asked)))
        if self.pings:
            await connection.chunk(_event("ping"))
        said, reason = 0, self.stop_reason
        for index, block in enumerate(blocks):
            empty: dict[str, Any] = {"type": block.kind, **_EMPTY[block.kind], **block.start}
            await connection.chunk(_event("content_block_start", index=index, content_block=empty))
            for piece in block.pieces:
                if said == asked["max_tokens"]:
                    reason = "max_tokens"
                    break
                await self.gate.passes(said, worker)
                if worker.stopped or await self.broken(connection, said, OVERLOADED):
                    return
                kind, name = DELTAS[block.kind]
                delta = {"type": kind, name: piece}
                await connection.chunk(_event("content_block_delta", index=index, delta=delta))
                said += 1
            await connection.chunk(_event("content_block_stop", index=index))
        ended = {"stop_reason": reason, "stop_sequence": None}
        await connection.chunk(_event("message_delta", delta=ended, usage={"output_tokens": said}))
        await connection.chunk(_event("message_stop"))
        await connection.end()

    def _head(self, asked: dict[str, Any]) -> dict[str, Any]:
        usage = {"input_tokens": 11, "cache_creation_input_tokens": 0, "output_tokens": 1}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "cache_read_input_tokens": self.cached_tokens},
        }

    def _whole(self, asked: dict[str, Any], blocks: list[Block]) -> dict[str, Any]:
        texts = ["".join(block.pieces[: asked["max_tokens"]]) for block in blocks if block.kind == "text"]
        content = [{"type": "text", "text": text} for text in texts]
        return {**self._head(asked), "content": content, "stop_reason": self.stop_reason}


_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"id": "toolu_1", "name": "tool", "input": {}},
}


def error_body(kind: str, message: str) -> bytes:
    """What a refusal holds."""
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


def _event(kind: str, **rest: Any) -> bytes:
    data = json.dumps({"type": kind, **rest}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


OVERLOADED = _event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def _key(seen: Seen) -> str:
    return seen.headers.get("x-api-key") or seen.headers.get("authorization", "").removeprefix("Bearer ")


def _mistake(seen: Seen, takes_temperature: bool) -> str | None:
    asked, version = seen.json, seen.headers.get("anthropic-version")
    if version not in VERSIONS:
        return f"anthropic-version: {version!r} is not a valid version"
    extra = set(asked) - REQUEST | (set(asked) & SAMPLING if version == NO_SAMPLING else set())
    if extra:
        return f"{min(extra)}: Extra inputs are not permitted"
    if asked.get("temperature") is not None and not takes_temperature:
        return "`temperature` is deprecated for this model."
    if missing := {"model", "max_tokens", "messages"} - set(asked):
        return f"{min(missing)}: Field required"
    if any(message["role"] not in ("user", "assistant") for message in asked["messages"]):
        return "messages: Unexpected role"
    if any(not stop.strip() for stop in asked.get("stop_sequences", [])):
        return "stop_sequences: each stop sequence must contain non-whitespace"
    return "temperature: range: 0..1" if asked.get("temperature", 0) > 1 else None


def _text_of(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)
