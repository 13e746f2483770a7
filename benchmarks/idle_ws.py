"""What a WebSocket costs that does nothing: the growth of the server's memory over many of them.

Measured twice: before anything was asked on the sockets, and after one call on each has ended.  Every socket
is checked: each must be accepted, and each call must end with `completed`.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from load import WrongAnswer, arguments, tell
from load_ws import HANDSHAKE, Job

BATCH = 100  # sockets that are opened at a time
WARM_UP = 20  # sockets that were used and closed before, so that what is there once for all is not counted
WAIT_S = 30


class Socket:
    """One WebSocket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Socket:
        """Connect."""
        socket = cls(*await asyncio.open_connection("127.0.0.1", port))
        socket._writer.write(HANDSHAKE.encode())
        head = await socket._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise WrongAnswer(f"no WebSocket: {head[:300]!r}")
        return socket

    async def ask(self, request: bytes) -> None:
        """Run a call to its end."""
        self._writer.write(request)
        await self._reader.readuntil(b'"status":"completed"')
        await self._reader.readuntil(b"}}")

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        await self._writer.wait_closed()


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Open sockets, use each of them once, and see what that took."""
    request = Job(args.command, 1, 1).request(0, 0)
    for socket in await _open(args.port, WARM_UP):
        await socket.ask(request)
        await socket.close()
    before = resident_kb(args.server_pid)
    sockets = await _open(args.port, args.connections)
    idle = resident_kb(args.server_pid) - before
    for socket in sockets:
        await socket.ask(request)
    used = resident_kb(args.server_pid) - before
    for socket in sockets:
        await socket.close()
    return {
        "command": args.command,
        "items": 0,
        "idle_kb_per_socket": round(idle / len(sockets), 2),
        "used_kb_per_socket": round(used / len(sockets), 2),
    }


async def _open(port: int, number: int) -> list[Socket]:
    sockets: list[Socket] = []
    while len(sockets) < number:
        batch = min(BATCH, number - len(sockets))
        sockets += await asyncio.gather(*(Socket.open(port) for _ in range(batch)))
    return sockets


def resident_kb(pid: int) -> int:
    """Return the memory of a process that is not swapped out."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise WrongAnswer(f"process {pid} shows no memory")


if __name__ == "__main__":
    tell(lambda args: asyncio.wait_for(measure(args), WAIT_S), arguments(__doc__).parse_args())
