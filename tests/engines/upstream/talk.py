"""What a server that speaks OpenAI's protocol says, and how tests ask it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import anyio

from engines.upstream.raw import END, STREAM, RawServer, Seen, chunked, event
from penstock.calls import ambient
from penstock.engines.openai import OpenAIEngine, open_openai
from penstock.protocol.events import EngineEnd, EngineEvent, EngineReport, EngineRequest

ALIVE = chunked(b": still here\n\n")
DONE = event(b"[DONE]")


def piece(text: str | None = None, reason: str | None = None, /, id: str = "chatcmpl-1", **delta: Any) -> Any:
    """A chunk of an answer."""
    said = ({} if text is None else {"content": text}) | delta
    return {"id": id, "choices": [{"index": 0, "delta": said, "finish_reason": reason}]}


USAGE = {
    "id": "chatcmpl-1",
    "choices": [],
    "usage": {
        "prompt_tokens": 8,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
GOOD = (
    STREAM,
    event(piece("one ")),
    event(piece("two")),
    event(piece(None, "stop")),
    event(USAGE),
    DONE,
    END,
)


async def good(seen: Seen) -> None:
    """Answer well."""
    await seen.send(*GOOD)


@asynccontextmanager
async def served(answer: Any = good, **options: Any) -> AsyncIterator[tuple[RawServer, OpenAIEngine]]:
    """A server and an engine for it."""
    options = {"retries": 0, "model": "m", "first_pause_s": 0.001} | options
    async with RawServer(answer) as server:
        engine = open_openai(server.url, **options)
        try:
            yield server, engine
        finally:
            await engine.aclose()


def request(**fields: Any) -> EngineRequest:
    """A chat."""
    fields = {"messages": ({"role": "user", "content": "secret question"},), "max_tokens": 16} | fields
    return EngineRequest(request_id=uuid.uuid4().hex, trace_id="t", model="m", **fields)


async def run(engine: OpenAIEngine, asked: EngineRequest | None = None) -> list[EngineEvent]:
    """All events of one answer."""
    with anyio.fail_after(20):
        async with aclosing(engine.generate(asked or request())) as events:
            return [event async for event in events]


async def end_of(engine: OpenAIEngine, asked: EngineRequest | None = None) -> EngineEnd:
    """The end of one answer."""
    end = (await run(engine, asked))[-1]
    assert isinstance(end, EngineEnd)
    return end


class Call:
    """The call that the code of a test runs in."""

    request_id = "r"

    def __init__(self, left_s: float | None) -> None:
        self._left_s = left_s
        self._began = time.monotonic()
        self.confirmed = 0

    metadata: Mapping[str, str] = {}

    def remaining(self) -> float | None:
        return None if self._left_s is None else self._left_s - (time.monotonic() - self._began)

    def report(self, report: EngineReport) -> None:
        """Nobody asks."""

    def upstream_confirmed(self) -> None:
        self.confirmed += 1


@contextmanager
def call(left_s: float | None = None) -> Iterator[Call]:
    made = Call(left_s)
    token = ambient.current.set(made)
    try:
        yield made
    finally:
        ambient.current.reset(token)


def hangs(*parts: bytes, alive: bool = False) -> Callable[[Seen], Any]:
    """Says a part and then nothing, or nothing but that it lives, until the other side has left."""

    async def answer(seen: Seen) -> None:
        await seen.send(*parts)
        while alive and not seen.gone.is_set():
            await seen.send(ALIVE)
            await anyio.sleep(0.01)
        await seen.gone.wait()

    return answer
