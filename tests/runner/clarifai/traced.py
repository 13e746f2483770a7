"""The project behind the traces: the methods that the recorded model had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from penstock import CommandError, Runtime


def traced() -> Runtime:
    """Return the project."""
    rt = Runtime()

    @rt.command("predict")
    async def predict(text: str = "", n: int = 1) -> str:
        return text * n

    @rt.command("slow")
    async def slow(seconds: float = 1.0) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    @rt.streaming_command("generate")
    async def generate(text: str, count: int = 3, delay: float = 0.05) -> AsyncIterator[str]:
        for number in range(count):
            await asyncio.sleep(delay)
            yield f"{text}-{number}"

    @rt.streaming_command("coop")
    async def coop(text: str, count: int = 3, delay: float = 0.05) -> AsyncIterator[str]:
        """Like generate, but stops by itself when the abort callback has run."""
        async for item in generate(text, count, delay):
            yield item

    @rt.streaming_command("stream")
    async def stream(texts: AsyncIterable[str], suffix: str = "!") -> AsyncIterator[str]:
        async for text in texts:
            yield text.upper() + suffix

    @rt.command("boom")
    async def boom(text: str = "x") -> str:
        raise CommandError(f"boom: {text}")

    @rt.streaming_command("gboom")
    async def gboom(text: str = "x") -> AsyncIterator[str]:
        yield f"{text}-0"
        yield f"{text}-1"
        raise CommandError(f"gboom: {text}")

    @rt.command("mixed")
    async def mixed(a: Any = None, b: list[int] | None = None) -> dict[str, Any]:
        return {"a": a, "b": b}

    @rt.command("openai_transport")
    async def openai_transport(msg: str) -> str:
        return json.dumps({"object": "chat.completion", "echo": json.loads(msg)})

    @rt.streaming_command("openai_stream_transport")
    async def openai_stream_transport(msg: str) -> AsyncIterator[str]:
        for number in range(3):
            choices = [{"delta": {"content": f"c{number}"}}]
            yield json.dumps({"object": "chat.completion.chunk", "choices": choices})

    return rt
