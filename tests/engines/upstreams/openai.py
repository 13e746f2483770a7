"""Plays a server that speaks OpenAI's protocol, as far as a chat needs it.

Who leaves the connection stops the work: that is the only cancel this protocol has.
"""

from __future__ import annotations

import json
from typing import Any

from engines.upstreams.gate import Worker
from engines.upstreams.server import Connection, Seen, Upstream

PATH = "/v1/chat/completions"
CUT_SHORT = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'


class OpenAIServer(Upstream):
    """The server; ``workers`` are its answers, running or not."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[Worker] = []
        self.finished: list[Worker] = []
        self.length = 200

    @property
    def working(self) -> int:
        """How many answers are still being made."""
        return sum(not worker.stopped and worker not in self.finished for worker in self.workers)

    def is_call(self, seen: Seen) -> bool:
        return seen.path == PATH

    async def answer(self, seen: Seen) -> None:
        connection = seen.connection
        if seen.path == "/v1/models":
            await connection.reply(200, b'{"data": [{"id": "played"}]}')
        elif seen.path == PATH:
            worker = Worker()
            self.workers.append(worker)
            connection.on_lost.append(worker.stop)
            await self._stream(seen.json, worker, connection)
            self.finished.append(worker)
        else:
            await connection.reply(404, b'{"error": {"message": "Not found"}}')

    async def _stream(self, asked: dict[str, Any], worker: Worker, connection: Connection) -> None:
        await self.headers_gate.wait()
        await connection.start(200, {"content-type": "text/event-stream; charset=utf-8"})
        prompt = asked["messages"][-1]["content"]
        tokens = min(self.length, asked.get("max_tokens", 200))
        await connection.chunk(_chunk({"role": "assistant", "content": ""}))
        for number in range(tokens):
            await self.gate.passes(number, worker)
            if worker.stopped or await self.broken(connection, number, CUT_SHORT):
                return
            await connection.chunk(_chunk({"content": f"{prompt}#{number} "}))
        await connection.chunk(_chunk({}, "length" if tokens < self.length else "stop"))
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": tokens}
        await connection.chunk(_event({"id": "chatcmpl-1", "choices": [], "usage": usage}))
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end()


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return _event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
