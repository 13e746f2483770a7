"""What the tests of the TypeScript client call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from penstock import CommandError, Runtime, engines

rt = Runtime("manifest.yml")


@rt.command("initialize")
def initialize():
    """Open the engine that says what it is told."""
    return {"engine": engines.open("scripted")}


@rt.streaming_command("predict")
async def predict(prompt: str, engine=None):
    """Answer a prompt piece by piece."""
    async for piece in engine.stream_text(prompt):
        yield {"chunk": piece}


@rt.streaming_command("count")
async def count(n: int):
    """Count from 0."""
    for number in range(n):
        yield {"i": number}


@rt.command("add")
def add(a: int, b: int):
    """Add two numbers."""
    return {"sum": a + b}


@rt.streaming_command("hold")
async def hold():
    """Give one item, then wait until it is cancelled."""
    yield {"i": 0}
    await asyncio.Event().wait()


@rt.streaming_command("upper")
async def upper(words: AsyncIterator[str]):
    """Write words in capitals."""
    async for word in words:
        yield word.upper()


@rt.command("fail")
def fail():
    """Fail in the author's own words."""
    raise CommandError("the model is out of ideas")
