"""The HTTP protocol alone on a real socket, with a handler that tells what it was handed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anyio
import uvicorn
from uvicorn.server import ServerState

from behaviour.checks import until
from behaviour.raw_http import WAIT_S, Address, Connection, Reply
from penstock.server.http_protocol import HttpProtocol
from penstock.server.settings import ServerSettings

HEADS = {"get": b"GET / HTTP/1.1\r\nhost: test\r\n", "post": b"POST / HTTP/1.1\r\nhost: test\r\n"}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n"


class Handled(NamedTuple):
    """A request as its handler had it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Edge:
    """A server whose handler answers with the target and the size of the body, once ``go`` is set."""

    address: Address = ("", 0)
    begun: list[str] = field(default_factory=list)  # targets
    handled: list[Handled] = field(default_factory=list)  # of requests that came whole
    left: asyncio.Queue[str] = field(default_factory=asyncio.Queue)  # targets whose client left
    go: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes = b""  # what is answered besides
    early: bool = False  # answer before the body has come
    state: ServerState = field(default_factory=ServerState)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        target = scope["raw_path"].decode()
        self.begun.append(target)
        if self.early:
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.put_nowait(target)
                return
            body += message["body"]
            more = message["more_body"]
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.handled.append(Handled(scope["method"], target, headers, body))
        await self._answer(target, len(body), receive, send)

    async def _answer(self, target: str, size: int, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        gone = asyncio.ensure_future(receive())  # noqa: TID251 - it ends below
        going = asyncio.ensure_future(self.go.wait())  # noqa: TID251
        await asyncio.wait((gone, going), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left.put_nowait(target)
        gone.cancel()
        going.cancel()
        await send({"type": "http.response.body", "body": f"{target} {size}".encode()})

    async def gone(self) -> str:
        """Return the target of the next client that left."""
        with anyio.fail_after(WAIT_S):
            return await self.left.get()

    async def probe(self, data: bytes) -> tuple[Reply, Connection]:
        """Send bytes; return what they are answered."""
        connection = await Connection.open(self.address)
        connection.send(data)
        return await connection.reply(), connection


@asynccontextmanager
async def edge(most_connections: int = 100, **settings: Any) -> AsyncIterator[Edge]:
    """Serve; by default the handler answers at once."""
    served = Edge()
    served.go.set()
    config = uvicorn.Config(served, lifespan="off", log_config=None, timeout_keep_alive=5)  # type: ignore[arg-type]

    def protocol() -> HttpProtocol:
        limits = ServerSettings(port=0, **settings)
        return HttpProtocol(config, served.state, {}, settings=limits, most_connections=most_connections)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    served.address = server.sockets[0].getsockname()
    try:
        yield served
    finally:
        server.close()
        for connection in tuple(served.state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        await until(
            lambda: not (served.state.connections or served.state.tasks), lambda: served.state.connections
        )


def is_refusal(reply: Reply, status: int, code: str) -> None:
    """Check the one shape of an error, and that it is the last word."""
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json"), reply
    assert reply.headers["connection"] == "close"
    assert len(reply.headers["x-request-id"]) == 32
    envelope = json.loads(reply.body)
    assert (envelope["type"], envelope["status"], envelope["code"]) == ("task", "error", code)
    for secret in ("Traceback", 'File "', "site-packages", "0x", "llhttp", "127.0.0.1"):
        assert secret not in envelope["error"]
