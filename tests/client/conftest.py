"""A project to call, in process and over HTTP, and a server that answers whatever it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, Literal

import anyio
import pytest
import uvicorn

from penstock.client import AsyncClient, Retry
from penstock.errors import CommandError
from penstock.runtime.app import App
from penstock.runtime.context import current_call
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime
from penstock.server.asgi import Application
from penstock.server.batching import BatchingWebSocket

WAIT_S = 5
QUICK = Retry(attempts=4, base_s=0.001, cap_s=0.01)
Ending = Literal["close", "reset", "hold", "keep"]


@pytest.fixture
def seen() -> SimpleNamespace:
    """What the commands of ``app`` tell the test."""
    return SimpleNamespace(metadata=[], stopped=asyncio.Event())


def project(seen: SimpleNamespace) -> Runtime:
    steps = [
        {"id": "count", "command": "tick", "input": {"n": "${input.n}"}},
        {"id": "say", "command": "echo", "input": {"text": "last was ${steps.count.n}"}},
    ]
    rt = Runtime(
        Manifest.model_validate({"name": "client", "workflows": {"count_and_say": {"steps": steps}}})
    )

    @rt.command("echo")
    async def echo(text: str) -> dict[str, str]:
        seen.metadata.append(current_call().metadata)
        return {"text": text}

    @rt.command("clash")
    async def clash(command: str, task_id: str, input: int) -> list[Any]:
        return [command, task_id, input]

    @rt.command("size")
    async def size(data: bytes) -> int:
        return len(data)

    @rt.streaming_command("tick")
    async def tick(n: int) -> AsyncIterator[dict[str, int]]:
        for number in range(n):
            yield {"n": number}

    @rt.streaming_command("words")
    async def words(text: str) -> AsyncIterator[dict[str, Any]]:
        for index, word in enumerate(text.split()):
            current_call().progress(index / 10, word)
            yield {"text": "…", "chunk": word, "finished": False}

    @rt.streaming_command("drafts")
    async def drafts() -> AsyncIterator[dict[str, str]]:
        yield {"text": "A"}
        yield {"text": "A fox"}

    @rt.streaming_command("pieces")
    async def pieces() -> AsyncIterator[str]:
        yield "A "
        yield "fox"

    @rt.streaming_command("fail")
    async def fail(after: int = 0) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise CommandError("no more paper", details=[{"tray": 2}], retryable=True, retry_after_s=3)

    @rt.streaming_command("hang")
    async def hang() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            seen.stopped.set()

    return rt


@pytest.fixture
async def app(seen: SimpleNamespace) -> AsyncIterator[App]:
    async with App(project(seen)) as app:
        yield app


@asynccontextmanager
async def served(app: App) -> AsyncIterator[str]:
    """Serve ``app`` on a free port of this machine; give its URL."""
    application = Application(app)
    config = uvicorn.Config(
        application, ws=BatchingWebSocket, lifespan="off", log_config=None, access_log=False
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup(sockets=[listener])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await server.shutdown(sockets=[listener])
            await application.aclose()


@pytest.fixture
async def url(app: App) -> AsyncIterator[str]:
    """A server of ``app``."""
    async with served(app) as url:
        yield url


@pytest.fixture(params=["local", "ndjson", "sse", "websocket"])
async def client(request: pytest.FixtureRequest, app: App) -> AsyncIterator[AsyncClient]:
    """A client of ``app``, over each way in."""
    async with AsyncExitStack() as stack:
        if request.param == "local":
            client = AsyncClient(app, retry=QUICK)
        elif request.param == "websocket":
            client = AsyncClient(
                (await stack.enter_async_context(served(app))).replace("http", "ws"), retry=QUICK
            )
        else:
            client = AsyncClient(
                await stack.enter_async_context(served(app)), form=request.param, retry=QUICK
            )
        await stack.enter_async_context(client)
        with anyio.fail_after(2 * WAIT_S):
            yield client


class Canned:
    """A server that gives each request the next of its answers, byte for byte.

    Attributes:
        requests: What was asked, heads and bodies.
        connections: How many were made.
        left: Set when a client closed a connection.
    """

    def __init__(self, *answers: tuple[bytes, Ending]) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> Canned:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        with anyio.fail_after(WAIT_S):
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer) == "keep":
                pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Ending:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            self.left.set()
            return "close"
        length = next(
            (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
        )
        self.requests.append(head + await reader.readexactly(int(length.partition(b":")[2])))
        answer, ending = self._answers.pop(0)
        writer.write(answer)
        await writer.drain()
        if ending == "hold":
            await reader.read()
            self.left.set()
        elif ending == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return ending


@pytest.fixture
def canned() -> Callable[..., Canned]:
    """Make a server of canned answers: ``async with canned((bytes, ending), ...) as server``."""
    return Canned
