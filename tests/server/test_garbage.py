"""A call leaves nothing for the garbage collector.

What only the collector can free stays until a full collection, and that stops every stream of the process.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.server.asgi import Application

pytestmark = pytest.mark.anyio
CALLS = 50

rt = Runtime()


@rt.command("add")
async def add(a: int, b: int) -> int:
    return a + b


@rt.streaming_command("count")
async def count(to: int) -> AsyncIterator[dict[str, int]]:
    for number in range(to):
        yield {"number": number}


BODIES = {
    "answer": b'{"command":"add","input":{"a":1,"b":2}}',
    "stream": b'{"command":"count","input":{"to":5},"is_stream":true}',
}


async def ask(application: Application, body: bytes) -> None:
    over = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            over.set()

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v2/execute", "headers": headers, "query_string": b""}
    await application(scope, receive, send)
    assert over.is_set()


@pytest.mark.parametrize("kind", ["answer", "stream"])
async def test_a_call_leaves_no_garbage(kind: str) -> None:
    async with App(rt) as app:
        application = Application(app)
        await ask(application, BODIES[kind])
        gc.collect()
        gc.disable()
        try:
            for _ in range(CALLS):
                await ask(application, BODIES[kind])
            await asyncio.sleep(0)  # the last watch feels its cancel
            left = gc.collect()
        finally:
            gc.enable()
            await application.aclose()
    assert left < CALLS
