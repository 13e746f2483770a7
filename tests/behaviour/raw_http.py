"""A bare HTTP/1.1 client over asyncio: raw bytes go in, and the ways in which a client leaves are its own.

It is no client to use elsewhere: it knows just enough to read what the server under test writes, and it
believes nothing (a body that ends early raises).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Mapping
from typing import Literal, NamedTuple

import anyio

WAIT_S = 20.0  # bounds every wait of this suite; nothing here is meant to take longer than a moment
LINGER_NOT = struct.pack("ii", 1, 0)  # a close that sends RST

Departure = Literal["fin", "rst", "half", "close"]  # the last: a WebSocket's close frame
Address = tuple[str, int]


# Of a traceback, a path on this machine, an address in memory or on the network.
INSIDE = re.compile(rb"Traceback|File \\?\"|site-packages|[/\\]penstock[/\\]| at 0x|127\.0\.0\.1")


def tells_nothing(data: bytes) -> bytes:
    """Check that ``data``, which the server wrote, tells nothing of its inside (P39); return it."""
    assert not (found := INSIDE.search(data)), f"{found and found[0]!r} in {data[:1000]!r}"
    return data


class Head(NamedTuple):
    """The first part of a response."""

    status: int
    headers: Mapping[str, str]


class Reply(NamedTuple):
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class CutShort(Exception):
    """The connection ended within a response."""


class Connection:
    """One connection; requests on it one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._chunked = False
        self._left = 0  # bytes of a body with a length

    @classmethod
    async def open(cls, address: Address) -> Connection:
        """Connect."""
        with anyio.fail_after(WAIT_S):
            return cls(*await asyncio.open_connection(*address, limit=32 * 1024 * 1024))

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(data)

    @property
    def socket(self) -> socket.socket:
        """What the bytes go through."""
        peer: socket.socket = self._writer.get_extra_info("socket")
        return peer

    async def drained(self) -> None:
        """Wait until the kernel has nearly all that was sent."""
        with anyio.fail_after(WAIT_S):
            await self._writer.drain()

    def pause(self) -> None:
        """Read nothing from now on, not even ahead."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        """Read again."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Write a request."""
        fields = {"host": "test", **(headers or {})}
        if body is not None:
            fields = {"content-type": "application/json", "content-length": str(len(body)), **fields}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.send("\r\n".join((*lines, "", "")).encode("latin-1") + (body or b""))

    async def head(self, method: str = "POST", wait_s: float = WAIT_S) -> Head:
        """Read the first part of the response to a request of ``method``, which may take ``wait_s``."""
        with anyio.fail_after(wait_s):
            try:
                text = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise CutShort("before the response's headers were complete") from error
        first, *lines = tells_nothing(text).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._chunked = headers.get("transfer-encoding") == "chunked"
        self._left = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        return Head(int(first.split()[1]), headers)

    async def piece(self) -> bytes:
        """Read the next chunk of the body as the server wrote it; empty at the body's end.

        Raises:
            CutShort: The connection ended first.
        """
        with anyio.fail_after(WAIT_S):
            try:
                return tells_nothing(await (self._chunk() if self._chunked else self._rest()))
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise CutShort("within the response's body") from error

    async def body(self) -> bytes:
        """Read the whole body."""
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def reply(self, method: str = "POST", wait_s: float = WAIT_S) -> Reply:
        """Read a whole response, which may begin after ``wait_s`` seconds at the latest."""
        head = await self.head(method, wait_s)
        return Reply(*head, await self.body())

    async def ended(self) -> bytes:
        """Read until the server closes; return what came."""
        with anyio.fail_after(WAIT_S):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    async def leave(self, how: Departure) -> None:
        """Go away: close in order, reset, or close only the direction to the server."""
        if how == "half":
            self._writer.write_eof()
            return
        if how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self._writer.transport.abort()
        await self.aclose()

    async def aclose(self) -> None:
        """Close."""
        self._writer.close()
        # The server may have been faster.
        with anyio.fail_after(WAIT_S), contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        data = (await self._reader.readexactly(size + 2))[:-2]
        if not size:
            self._chunked = False
        return data

    async def _rest(self) -> bytes:
        data = await self._reader.readexactly(self._left)
        self._left = 0
        return data
