"""A bare WebSocket peer over asyncio: raw frames go in and come out, and nothing is answered by itself.

It is no client to use elsewhere: it believes what it wants to believe, and it may be as rude as a test needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any, Literal

import anyio

WAIT_S = 20.0  # bounds every wait; nothing is meant to take longer than a moment
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
Departure = Literal["fin", "rst", "half", "close"]
DEPARTURES: tuple[Departure, ...] = ("fin", "rst", "half", "close")
Json = dict[str, Any]


class Ended(Exception):
    """The server closed; ``code`` is that of its close frame, None where it sent none."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Return a client's frame; its mask is zero, so the payload stands as it is."""
    size = len(payload)
    if size < 126:
        head = bytes((opcode | fin << 7, 128 | size))
    elif size < 65536:
        head = bytes((opcode | fin << 7, 254)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode | fin << 7, 255)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


def message(kind: str, **fields: Any) -> bytes:
    """Return a message of the protocol as a frame."""
    return frame(TEXT, json.dumps({"type": kind, **fields}).encode())


class Peer:
    """One connection; ``async with Peer.open(address) as peer``."""

    def __init__(self, address: tuple[str, int], path: str, headers: str, receive_buffer: int | None) -> None:
        self._address = address
        self._head = f"GET {path} HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        self._head += f"sec-websocket-version: 13\r\nsec-websocket-key: {'A' * 22}==\r\n{headers}\r\n"
        self._receive_buffer = receive_buffer
        self.status = 0

    @classmethod
    def open(
        cls,
        address: tuple[str, int],
        path: str = "/v2/ws",
        *,
        headers: str = "",
        receive_buffer: int | None = None,
    ) -> Peer:
        """Connect; ``receive_buffer`` bytes are kept by the kernel for a peer that does not read."""
        return cls(address, path, headers, receive_buffer)

    async def __aenter__(self) -> Peer:
        self.socket = socket.socket()
        if self._receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self.socket.setblocking(False)
        with anyio.fail_after(WAIT_S):
            await asyncio.get_running_loop().sock_connect(self.socket, self._address)
            self._reader, self._writer = await asyncio.open_connection(sock=self.socket, limit=65536)
            self._writer.write(self._head.encode())
            answer = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(answer.split(b" ")[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with anyio.fail_after(WAIT_S):
            with contextlib.suppress(OSError):  # the server was faster, or ruder
                await self._writer.wait_closed()

    # -- writing -------------------------------------------------------------------------------------

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message of the protocol."""
        self.write(message(kind, **fields))

    def text(self, payload: bytes | str) -> None:
        """Send a text message."""
        self.write(frame(TEXT, payload.encode() if isinstance(payload, str) else payload))

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the server takes more."""
        with anyio.fail_after(WAIT_S):
            await self._writer.drain()

    async def leave(self, how: Departure) -> None:
        """Go away, or say so."""
        if how == "close":
            self.write(frame(CLOSE, struct.pack("!H", 1000)))
        elif how == "half":
            self._writer.write_eof()
        elif how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()

    # -- reading -------------------------------------------------------------------------------------

    async def frame(self, wait_s: float = WAIT_S) -> tuple[int, bytes]:
        """Return the next frame's opcode and payload.

        Raises:
            Ended: There is none.
        """
        try:
            with anyio.fail_after(wait_s):
                first, size = await self._reader.readexactly(2)
                if size > 125:
                    size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
                payload = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Ended(None) from error
        if first & 15 == CLOSE:
            raise Ended(int.from_bytes(payload[:2], "big") or None)
        assert first & 128, "servers do not fragment"
        return first & 15, payload

    async def line(self, wait_s: float = WAIT_S) -> bytes:
        """Return the next message as it stands, passing over pings."""
        while True:
            opcode, payload = await self.frame(wait_s)
            if opcode == TEXT:
                return payload

    async def receive(self) -> Json:
        """Return the next message, passing over pings."""
        return json.loads(await self.line())

    async def until(self, status: str, task_id: str | None = None) -> list[Json]:
        """Return messages up to the first of this status (of this call)."""
        messages = [await self.receive()]
        while messages[-1].get("status") != status or task_id not in (None, messages[-1].get("task_id")):
            messages.append(await self.receive())
        return messages

    async def until_pong(self) -> list[Json]:
        """Send a ping of the protocol; return what comes before its answer."""
        self.send("ping")
        messages = []
        while (got := await self.receive())["type"] != "pong":
            messages.append(got)
        return messages

    async def ended(self) -> int | None:
        """Read to the end; return the code of the server's close frame."""
        try:
            while True:
                await self.frame()
        except Ended as end:
            return end.code
