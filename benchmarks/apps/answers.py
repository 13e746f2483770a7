"""Plays the upstreams of engines: whole answers, made beforehand and written at once, a token a chunk.

python benchmarks/apps/answers.py --core 1
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import uvloop
from hosting import pin_to_core, say_ready

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ASKED = re.compile(rb'"max(?:_new)?_tokens": ?(\d+)')
NAMED = re.compile(rb'"rid": ?"([0-9a-f]{32})"')
NAME = "0" * 32  # as long as every name
TOKEN = "token "
INCREMENTAL = b"only what is new"  # in a prompt; a real server is started so


def openai(tokens: int) -> Iterator[str]:
    """Yield the events of an answer."""
    fixed = {"object": "chat.completion.chunk", "created": 1704067200, "model": "played"}

    def chunk(delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return data({"id": "chatcmpl-1", **fixed, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    for _ in range(tokens):
        yield chunk({"content": TOKEN})
    yield chunk({}, "stop")
    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": tokens + 8}
    yield data({"id": "chatcmpl-1", **fixed, "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def anthropic(tokens: int) -> Iterator[str]:
    """Yield the events of an answer."""

    def event(kind: str, **rest: Any) -> str:
        return f"event: {kind}\n" + data({"type": kind, **rest})

    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-played", "content": []}
    usage = {"input_tokens": 8, "output_tokens": 1}
    ending = {"stop_reason": None, "stop_sequence": None}
    yield event("message_start", message={**message, **ending, "usage": usage})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for _ in range(tokens):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": TOKEN})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={**ending, "stop_reason": "end_turn"}, usage={"output_tokens": tokens})
    yield event("message_stop")


def sglang(tokens: int, *, repeated: bool = True) -> Iterator[str]:
    """Yield the events of an answer; each has all of it so far, as is the default there, or what is new."""
    for count in range(1, tokens + 1):
        reason = {"type": "stop", "matched": 2} if count == tokens else None
        meta = {"id": NAME, "finish_reason": reason, "prompt_tokens": 8, "completion_tokens": count}
        meta |= {"weight_version": "default", "cached_tokens": 0, "e2e_latency": None}
        told = range(1000 if repeated else 999 + count, 1000 + count)
        yield data({"text": TOKEN * len(told), "output_ids": list(told), "meta_info": meta})
    yield "data: [DONE]\n\n"


def data(value: object) -> str:
    """Return an event."""
    return f"data: {json.dumps(value)}\n\n"


SAID = {b"/v1/chat/completions": openai, b"/v1/messages": anthropic, b"/generate": sglang}


@cache
def answer(path: bytes, tokens: int, repeated: bool) -> bytes:
    """Return a whole answer."""
    said = SAID[path](tokens) if repeated else sglang(tokens, repeated=False)
    events = (event.encode() for event in said)
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self) -> None:
        self._read = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, ended, body = self._read.partition(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: *(\d+)", head)
        if not ended or size is None or len(body) < int(size[1]):
            return
        self._read = b""
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        asked, named = ASKED.search(body), NAMED.search(body)
        assert asked is not None
        whole = answer(path, int(asked[1]), INCREMENTAL not in body)
        self._transport.write(whole.replace(NAME.encode(), named[1]) if named else whole)


async def serve() -> None:
    """Serve until this process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    say_ready(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    pin_to_core()
    uvloop.run(serve())
