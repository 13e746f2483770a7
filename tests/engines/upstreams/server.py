"""A small real HTTP/1.1 server that plays an upstream, records what reaches it, and fails when it is told to.

It works on bytes itself, because a framework would not let it cut a reply in the middle of a character, or
see the moment at which a connection is lost.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from engines.upstreams.gate import Gate
from penstock.calls.tasks import TaskOwner

_REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 429: "Too Many Requests"}


@dataclass
class Faults:
    """What goes wrong; each is off at first.

    ``status``, ``body`` and ``headers`` are answered instead of a stream, to the next ``times`` requests.
    """

    status: int = 0
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1_000_000
    drop_before_headers: int = 0
    """So many requests lose their connection unanswered."""
    error_after: int | None = None
    """After so many tokens the stream of status 200 carries an error."""
    cut_after: int | None = None
    """After so many tokens the connection is lost."""
    end_after: int | None = None
    """After so many tokens the reply ends as if it were whole, without saying why."""
    long_line_after: int | None = None
    """After so many tokens comes a line of ``long_line_bytes``."""
    long_line_bytes: int = 100 * 1024 * 1024
    junk_after: int | None = None
    """After so many tokens comes an event that is no JSON."""
    other_id: bool = False
    """It answers for another request's id."""
    split: int = 0
    """The reply leaves in pieces of so many bytes, each on its own."""


@dataclass
class Seen:
    """A request that reached the server."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: Connection

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection: takes requests one after the other, and answers them."""

    def __init__(self, server: Upstream) -> None:
        self.server = server
        self.lost = asyncio.Event()
        self.on_lost: list[Callable[[], None]] = []
        self.answering = False
        self.sent = 0
        """Bytes of replies."""
        self._transport: asyncio.Transport
        self._read = bytearray()
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.server.connections.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._room.set()
        for tell in self.on_lost:
            tell()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self.answering and (seen := self._request()) is not None:
            self.answering = True
            self.server.tasks.start(self._answer(seen), name=f"{seen.method} {seen.path}")

    async def _answer(self, seen: Seen) -> None:
        try:
            await self.server.handle(seen)
        except ConnectionResetError:
            self.drop()
        self.answering = False
        if not self.lost.is_set():
            self.data_received(b"")

    def _request(self) -> Seen | None:
        head, ended, rest = bytes(self._read).partition(b"\r\n\r\n")
        if not ended:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        if len(rest) < size:
            return None
        method, path, _ = first.split(" ")
        self._read = bytearray(rest[size:])
        return Seen(method, path, headers, rest[:size], self)

    async def write(self, data: bytes) -> None:
        """Send bytes, in pieces where the server is told so."""
        split = self.server.faults.split
        for piece in [data[at : at + split] for at in range(0, len(data), split)] if split else [data]:
            if self.lost.is_set():
                raise ConnectionResetError
            self._transport.write(piece)
            self.sent += len(piece)
            if split:
                await anyio.lowlevel.checkpoint()
        await self._room.wait()

    def drop(self) -> None:
        """Lose the connection, as a process that dies does."""
        self._transport.abort()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head of a reply that comes in chunks."""
        head = {"transfer-encoding": "chunked", **headers}
        await self.write(_head(status, head))

    async def chunk(self, data: bytes) -> None:
        """Send a part of the body."""
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """Send the end of the body."""
        await self.write(b"0\r\n\r\n")

    async def reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole reply."""
        head = {"content-type": "application/json", **(headers or {}), "content-length": str(len(body))}
        await self.write(_head(status, head) + body)


class Upstream(ABC):
    """The server: what it is told to do wrong, and what it saw."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.gate = Gate()
        self.headers_gate = asyncio.Event()
        self.headers_gate.set()
        self.seen: list[Seen] = []
        self.connections: list[Connection] = []
        self.tasks = TaskOwner()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections are not closed."""
        return sum(not connection.lost.is_set() for connection in self.connections)

    def seen_at(self, path: str) -> list[Seen]:
        """The requests to one path."""
        return [seen for seen in self.seen if seen.path.partition("?")[0] == path]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        """Listen on a free port of 127.0.0.1, and leave nothing behind."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            for connection in self.connections:
                connection.drop()
            await self.tasks.aclose()
            for connection in self.connections:
                await connection.lost.wait()

    async def refuse(self) -> None:
        """Listen no more: whoever connects now is refused."""
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            connection.drop()
            await connection.lost.wait()

    async def handle(self, seen: Seen) -> None:
        """Answer one request, or do what the faults say."""
        self.seen.append(seen)
        faults = self.faults
        if self.is_call(seen):
            if faults.drop_before_headers:
                faults.drop_before_headers -= 1
                seen.connection.drop()
                return
            if faults.status and faults.times > 0:
                faults.times -= 1
                await seen.connection.reply(faults.status, faults.body, faults.headers)
                return
        await self.answer(seen)

    @abstractmethod
    def is_call(self, seen: Seen) -> bool:
        """Whether faults of status apply to this request."""

    @abstractmethod
    async def answer(self, seen: Seen) -> None:
        """Answer one request."""

    async def broken(self, connection: Connection, said: int, error: bytes) -> bool:
        """Do what is due to go wrong after ``said`` tokens; whether the reply ended by that."""
        faults = self.faults
        if _due(faults.error_after, said):
            await connection.chunk(error)
            await connection.end()
        elif _due(faults.cut_after, said):
            connection.drop()
        elif _due(faults.end_after, said):
            await connection.end()
        elif _due(faults.junk_after, said):
            await connection.chunk(b"data: {no json\n\n")
            await connection.end()
        elif _due(faults.long_line_after, said):
            await self._long_line(connection)
        else:
            return False
        return True

    async def _long_line(self, connection: Connection) -> None:
        await connection.chunk(b"data: ")
        piece = b"x" * 65536
        for _ in range(self.faults.long_line_bytes // len(piece)):
            await connection.chunk(piece)
        await connection.chunk(b"\n\n")
        await connection.end()


def _due(after: int | None, said: int) -> bool:
    return after is not None and said >= after


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
