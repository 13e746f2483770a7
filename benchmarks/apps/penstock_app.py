"""penstock: a scripted engine behind an author's commands, generators without an engine, and `add`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvloop
from frames import TOKENS
from hosting import pin_to_core, say_ready

from penstock.engines.scripted import ScriptedEngine
from penstock.observability.exposition import Exposition
from penstock.observability.recorder import Recorder
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.server.host import Host
from penstock.server.settings import ServerSettings

PERMITS = 1024  # more than there are connections: this measures a stream, not the wait for a permit

rt = Runtime()
engine = ScriptedEngine(tokens=TOKENS)


@rt.streaming_command("predict", concurrency=PERMITS)
async def predict(prompt: str) -> AsyncIterator[dict[str, Any]]:
    """Say what the engine says."""
    async for piece in engine.stream_text(prompt, max_tokens=TOKENS):
        yield {"text": piece, "chunk": piece, "finished": False}


@rt.streaming_command("items", concurrency=PERMITS)
async def items(prompt: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the same items without an engine."""
    for _ in range(TOKENS):
        yield {"text": "token ", "chunk": "token ", "finished": False}


@rt.streaming_command("one", concurrency=PERMITS)
async def one(prompt: str) -> AsyncIterator[dict[str, Any]]:
    """Say one token: what comes before it is all that it costs."""
    async for piece in engine.stream_text(prompt, max_tokens=1):
        yield {"text": piece, "chunk": piece, "finished": False}


@rt.streaming_command("cumulative", concurrency=PERMITS)
async def cumulative(prompt: str) -> AsyncIterator[dict[str, Any]]:
    """Say with every token all the text so far."""
    text = ""
    async for piece in engine.stream_text(prompt, max_tokens=TOKENS):
        text += piece
        yield {"text": text, "chunk": piece, "finished": False}


@rt.streaming_command("threads", concurrency=PERMITS)
def threads(prompt: str) -> Iterator[dict[str, Any]]:
    """Yield the same items in a thread."""
    for _ in range(TOKENS):
        yield {"text": "token ", "chunk": "token ", "finished": False}


@rt.streaming_command("chat", concurrency=PERMITS, openai="chat")
async def chat(messages: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """Say what the engine says, to OpenAI's clients too."""
    async for piece in engine.chat(messages, max_tokens=TOKENS):
        yield {"text": piece, "chunk": piece, "finished": False}


@rt.command("add", concurrency=PERMITS)
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    pin_to_core()
    recorder = Recorder()  # metrics are on, as they are in `penstock run`
    host = Host(
        App(rt, observer=recorder),
        ServerSettings(port=0),
        lambda url: say_ready(int(url.rpartition(":")[2])),
        Exposition(recorder),
    )
    uvloop.run(host.serve())
