"""A server that says what a test tells it to, byte by byte, and notes what reached it on which connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, cast

from typing_extensions import Self

from penstock.calls.tasks import TaskOwner

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunked(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def told(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def event(data: object) -> bytes:
    """One server-sent event, as a chunk of a body."""
    return chunked(told(data))


def reply(status: int, body: object = b"", **headers: str) -> bytes:
    """A whole answer that is no stream."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"content-type": "application/json", "content-length": str(len(content))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Told\r\n{lines}\r\n".encode() + content


class Seen:
    """One request; ``number`` is that of its connection."""

    def __init__(self, connection: _Connection, head: bytes, body: bytes) -> None:
        lines = head.decode().split("\r\n")
        self.method, self.path, _ = lines[0].split(" ", 2)
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        self.body: Any = json.loads(body) if body else None
        self.number = connection.number
        self.gone = connection.gone
        self._connection = connection

    async def send(self, *parts: bytes) -> None:
        """Send bytes, waiting while the other side does not read; nothing once it has left."""
        for part in parts:
            await self._connection.writable.wait()
            self._connection.transport.write(part)

    def hang_up(self) -> None:
        """Close the connection, after what was sent."""
        self._connection.transport.close()

    def reset(self) -> None:
        """Break the connection."""
        self._connection.transport.abort()


Answer = Callable[[Seen], Coroutine[Any, Any, object]]


class RawServer:
    """Answers every request by ``answer``, which may be changed at any time."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections: list[_Connection] = []
        self.tasks = TaskOwner()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self.connections:
            connection.transport.abort()
        await self.tasks.aclose()
        await self._server.wait_closed()

    async def arrived(self, count: int) -> None:
        """Wait until so many requests are there."""
        while len(self.seen) < count:
            self._news.clear()
            await self._news.wait()

    def take(self, seen: Seen) -> None:
        """A request is there."""
        self.seen.append(seen)
        self._news.set()
        assert self.answer is not None
        self.tasks.start(self.answer(seen))


class _Connection(asyncio.Protocol):
    def __init__(self, server: RawServer) -> None:
        self._server = server
        self._buffer = b""
        self.number = len(server.connections)
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        server.connections.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._server.take(Seen(self, head, rest[:length]))
