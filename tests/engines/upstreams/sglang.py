"""Plays an SGLang server: its native API, and as much of its OpenAI route as a chat needs.

What it does is what SGLang's public documentation and source say of versions 0.4 and 0.5:

- ``POST /generate`` with ``stream`` answers 200 at once and then events; text and ids in an event are all so
  far, or with ``--incremental-streaming-output`` the new part; mistakes in a request come as an ``error``
  object in the stream.
- An id that is in use is refused.
- ``POST /abort_request`` answers 200 whatever happens.  It does nothing for an id it does not know, and
  otherwise stops every request whose id *begins* with the given one.
- Leaving the connection stops the work in some versions, and in others does not (``stops_on_disconnect``).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

from engines.upstreams.gate import Worker
from engines.upstreams.server import Connection, Seen, Upstream

SAMPLING = {"max_new_tokens", "stop", "temperature", "top_p", "top_k", "frequency_penalty"}
SAMPLING |= {"presence_penalty", "repetition_penalty", "sampling_seed", "json_schema"}
CHAT = {"messages", "model", "max_tokens", "max_completion_tokens", "stop", "temperature", "top_p", "top_k"}
CHAT |= {"frequency_penalty", "presence_penalty", "repetition_penalty", "seed", "response_format", "tools"}
CHAT |= {"stream", "stream_options", "rid", "return_token_ids"}


class Generation(Worker):
    """Work in the scheduler: it goes on whether or not someone listens."""

    def __init__(self, rid: str, pieces: list[bytes], limit: int, prompt_tokens: int) -> None:
        super().__init__()
        self.rid = rid
        self.pieces = pieces
        self.limit = limit
        self.prompt_tokens = prompt_tokens
        self.said = 0
        self.finish: dict[str, Any] | None = None
        self.changed = asyncio.Event()

    @property
    def ids(self) -> list[int]:
        """The tokens so far."""
        return [1000 + number for number in range(self.said)]

    @property
    def text(self) -> str:
        """What can be shown of them: a character that is not whole yet is held back."""
        return b"".join(self.pieces[: self.said]).decode("utf-8", "ignore")

    def tell(self) -> None:
        """Wake who listens."""
        self.changed.set()
        self.changed = asyncio.Event()


class SGLangServer(Upstream):
    """The server; ``live`` is the work that is running, ``useless`` the ids of aborts that hit nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, Generation] = {}
        self.all: list[Generation] = []
        self.aborts: list[str] = []
        self.useless: list[str] = []
        self.pieces: list[bytes] | None = None
        self.length = 200
        self.cached_tokens = 0
        self.incremental = False
        self.stops_on_disconnect = False
        self.loses_rid_on_disconnect = False
        """As in some releases: who leaves is forgotten, runs on, and can no longer be aborted."""
        self.known_gate = asyncio.Event()
        self.known_gate.set()
        self.abort_gate = asyncio.Event()
        self.abort_gate.set()
        self.abort_status = 200
        self.ignores_aborts = False
        self.mistake = ""
        """What it finds wrong with every request."""
        self.aborted_by_itself_after = math.inf
        self.abort_reason: dict[str, Any] = {"message": "Abort", "status_code": None}

    def is_call(self, seen: Seen) -> bool:
        return seen.path in ("/generate", "/v1/chat/completions")

    async def answer(self, seen: Seen) -> None:
        connection = seen.connection
        if seen.path == "/generate":
            await self._generate(seen)
        elif seen.path == "/v1/chat/completions":
            await self._chat(seen)
        elif seen.path == "/abort_request":
            await self._abort(seen)
        elif seen.path == "/health":
            await connection.reply(200, b"")
        elif seen.path in ("/get_model_info", "/model_info"):
            await connection.reply(200, b'{"model_path": "fake/model", "is_generation": true}')
        else:
            await connection.reply(404, b'{"detail": "Not Found"}')

    async def _abort(self, seen: Seen) -> None:
        rid = seen.json["rid"]
        self.aborts.append(rid)
        await self.abort_gate.wait()
        if self.abort_status == 0:
            seen.connection.drop()
            return
        if self.abort_status == 200:
            hit = [work for name, work in self.live.items() if name.startswith(rid)]
            if rid in self.live:
                for work in () if self.ignores_aborts else hit:
                    work.stop()
            else:
                self.useless.append(rid)
        await seen.connection.reply(self.abort_status, b"")

    async def _generate(self, seen: Seen) -> None:
        asked, connection = seen.json, seen.connection
        await self._headers(connection)
        sampling = asked.get("sampling_params", {})
        if unknown := set(sampling) - SAMPLING:
            await self._refused(connection, f"Unexpected keyword argument {min(unknown)!r}")
            return
        rid = asked["rid"]
        work = await self._begin(connection, rid, asked["text"], sampling.get("max_new_tokens", 128))
        if work is None:
            return
        told, finish = 0, None
        async for finish in self._progress(work, connection):
            text, ids = work.text, work.ids
            if self.incremental:
                text, ids = self._new(work, told)
            told = work.said
            meta = {
                "id": "somebody-else" if self.faults.other_id else rid,
                "finish_reason": finish,
                "prompt_tokens": work.prompt_tokens,
                "weight_version": "default",
                "completion_tokens": work.said,
                "cached_tokens": self.cached_tokens,
            }
            event = {"text": text, "output_ids": ids, "meta_info": meta}
            await connection.chunk(_event(event))
        if finish is not None:
            await connection.chunk(b"data: [DONE]\n\n")
            await connection.end()

    def _new(self, work: Generation, told: int) -> tuple[str, list[int]]:
        before = b"".join(work.pieces[:told]).decode("utf-8", "ignore")
        return work.text[len(before) :], work.ids[told:]

    async def _chat(self, seen: Seen) -> None:
        asked, connection = seen.json, seen.connection
        if unknown := set(asked) - CHAT:
            await connection.reply(400, _error(f"unknown field {min(unknown)!r}"))
            return
        await self._headers(connection)
        rid = asked.get("rid", "unnamed")
        prompt = asked["messages"][-1]["content"]
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or 128
        work = await self._begin(connection, rid, prompt, limit)
        if work is None:
            return
        told, finish, first = 0, None, True
        async for finish in self._progress(work, connection):
            text, ids = self._new(work, told)
            told = work.said
            delta = {"role": "assistant", "content": ""} if first else {"content": text}
            if first:
                await connection.chunk(_event(self._chunk(rid, {"index": 0, "delta": delta})))
                first, delta = False, {"content": text}
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
            if asked.get("return_token_ids"):
                choice["token_ids"] = ids
            await connection.chunk(_event(self._chunk(rid, choice)))
            if finish is not None:
                last = {"index": 0, "delta": {}, "finish_reason": finish["type"]}
                await connection.chunk(_event(self._chunk(rid, last)))
        if finish is not None:
            if asked.get("stream_options", {}).get("include_usage"):
                await connection.chunk(_event(self._chunk(rid, None) | {"usage": self._usage(work)}))
            await connection.chunk(b"data: [DONE]\n\n")
            await connection.end()

    def _usage(self, work: Generation) -> dict[str, Any]:
        return {
            "prompt_tokens": work.prompt_tokens,
            "completion_tokens": work.said,
            "total_tokens": work.prompt_tokens + work.said,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

    def _chunk(self, rid: str, choice: dict[str, Any] | None) -> dict[str, Any]:
        name = "somebody-else" if self.faults.other_id else rid
        choices = [] if choice is None else [choice]
        return {"id": name, "object": "chat.completion.chunk", "model": "fake", "choices": choices}

    async def _headers(self, connection: Connection) -> None:
        await self.headers_gate.wait()
        await connection.start(200, {"content-type": "text/event-stream; charset=utf-8"})

    async def _begin(self, connection: Connection, rid: str, prompt: str, limit: int) -> Generation | None:
        """Put the work into the scheduler, as soon as that may know it."""
        await self.known_gate.wait()
        if connection.lost.is_set():
            return None
        if self.mistake or rid in self.live:
            await self._refused(connection, self.mistake or f"Duplicate request ID detected: {rid}")
            return None
        pieces = self.pieces or [f"{prompt}#{number} ".encode() for number in range(self.length)]
        work = Generation(rid, pieces, limit, len(prompt.split()))
        self.live[rid] = work
        self.all.append(work)
        self.tasks.start(self._work(work))
        connection.on_lost.append(work.tell)
        return work

    async def _refused(self, connection: Connection, why: str) -> None:
        await connection.chunk(_event({"error": {"message": why}}))
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end()

    async def _work(self, work: Generation) -> None:
        while work.finish is None:
            await self.gate.passes(work.said, work)
            self._step(work)
            if work.finish is not None and self.live.get(work.rid) is work:
                del self.live[work.rid]
            work.tell()
            await asyncio.sleep(0)

    def _step(self, work: Generation) -> None:
        if work.stopped or work.said >= self.aborted_by_itself_after:
            work.finish = {"type": "abort", **self.abort_reason}
            return
        work.said += 1
        if work.said >= work.limit:
            work.finish = {"type": "length", "length": work.limit}
        elif work.said >= len(work.pieces):
            work.finish = {"type": "stop", "matched": 2}

    async def _progress(
        self, work: Generation, connection: Connection
    ) -> AsyncIterator[dict[str, Any] | None]:
        """Each time there is more to tell, why it ended, if it did; ends early where a fault is due."""
        told = -1
        error = _event({"error": {"message": "CUDA out of memory", "code": 500}})
        while told < work.said or work.finish is None:
            if await self.broken(connection, max(told, 0), error):
                work.stop()
                return
            await self._more(work, connection, told)
            told, finish = work.said, work.finish
            yield finish
            if finish is not None:
                return

    async def _more(self, work: Generation, connection: Connection, told: int) -> None:
        while work.said <= max(told, 0) and work.finish is None:
            if connection.lost.is_set():
                self._left(work)
                raise ConnectionResetError
            await work.changed.wait()

    def _left(self, work: Generation) -> None:
        if self.stops_on_disconnect:
            work.stop()
        elif self.loses_rid_on_disconnect:
            self.live.pop(work.rid, None)


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _error(message: str) -> bytes:
    return json.dumps({"object": "error", "message": message, "type": "400", "code": 400}).encode()
