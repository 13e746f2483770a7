"""A project with the methods that the traces call, and what tests see of its calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any

from penstock import CommandError, Runtime, current_call
from penstock.runtime.context import get_request_id


class Seen:
    """What happens in the project's code."""

    def __init__(self) -> None:
        self.left: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self.going = asyncio.Event()
        self.yielded = 0
        self.inputs = 0
        self.began = threading.Event()
        self.let_go = threading.Event()

    def leave(self, why: str) -> None:
        """Tell how a call was left."""
        self.left.put_nowait((why, time.perf_counter()))


def toy(seen: Seen) -> Runtime:
    """Return the project."""
    rt = Runtime()

    @rt.command("predict")
    async def predict(text: str = "", n: int = 1) -> str:
        return text * n

    @rt.streaming_command("generate")
    async def generate(text: str, count: int = 3, delay: float = 0.0) -> AsyncIterator[str]:
        for number in range(count):
            if delay:
                await asyncio.sleep(delay)
            yield f"{text}-{number}"

    @rt.streaming_command("stream")
    async def stream(texts: AsyncIterable[str], suffix: str = "!") -> AsyncIterator[str]:
        try:
            async for text in texts:
                seen.inputs += 1
                yield text.upper() + suffix
        finally:
            seen.leave("stream")

    @rt.streaming_command("swallow")
    async def swallow(texts: AsyncIterable[str]) -> AsyncIterator[int]:
        await asyncio.sleep(0.05)
        count = 0
        async for _ in texts:
            count += 1
        yield count

    @rt.command("joined")
    async def joined(texts: AsyncIterable[str]) -> str:
        return "".join([text async for text in texts])

    @rt.command("boom")
    async def boom(text: str = "x") -> str:
        raise CommandError(f"boom: {text}")

    @rt.command("secret")
    async def secret() -> str:
        raise ValueError("the password is 1234")

    @rt.streaming_command("gboom")
    async def gboom(text: str = "x") -> AsyncIterator[str]:
        yield f"{text}-0"
        yield f"{text}-1"
        raise CommandError(f"gboom: {text}")

    @rt.command("wait")
    async def wait() -> str:
        seen.going.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.leave("wait")
        return "never"

    @rt.streaming_command("endless")
    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                seen.going.set()
                seen.yielded += 1
                yield "x" * 1000
        finally:
            seen.leave("endless")

    @rt.streaming_command("quiet")
    async def quiet() -> AsyncIterator[str]:
        try:
            yield "going"
            seen.going.set()
            await asyncio.Event().wait()
        finally:
            seen.leave("quiet")

    @rt.command("until_let_go")
    async def until_let_go() -> str:
        seen.going.set()
        await asyncio.to_thread(seen.let_go.wait, 10)
        return "done"

    @rt.command("deaf")
    def deaf() -> str:
        seen.began.set()
        seen.let_go.wait(10)
        return "done"

    @rt.streaming_command("nothing")
    def nothing() -> Iterator[str]:
        yield from ()

    @rt.command("large")
    async def large(size: int) -> str:
        return "x" * size

    @rt.streaming_command("larger")
    async def larger(size: int) -> AsyncIterator[str]:
        try:
            yield "small"
            yield "x" * size
            yield "never"
        finally:
            seen.leave("larger")

    @rt.command("ids")
    async def ids() -> dict[str, Any]:
        call = current_call()
        return {"item": get_request_id(), "request": call.metadata.get("x_request_id"), "task": call.task_id}

    @rt.command("initialize")
    async def initialize() -> dict[str, Any]:
        return {"unused": True}

    return rt
