"""A cable between a runner and a gateway, that a test may cut, freeze and mend."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

from behaviour.raw_http import Address
from penstock.calls.tasks import TaskOwner

PIECE = 64 * 1024


class Cable:
    """Forwards what comes to its own address to another one; ``async with`` lays and removes it.

    Attributes:
        connections: How many there have been.
        carried: Bytes that went towards the gateway, over all connections.
    """

    def __init__(self, target: Address) -> None:
        self._target = target
        self._tasks = TaskOwner()
        self._ends: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._left: dict[bool, int | None] = {True: None, False: None}
        self.connections = 0
        self.carried = 0
        self.refuses = False
        self.cut_done = asyncio.Event()

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"ws://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._ends |= self._frozen
        self.cut()
        await self._tasks.aclose()
        await self._server.wait_closed()

    def cut(self) -> None:
        """End every connection, as a network does that has lost its memory; new ones can be made."""
        for end in self._ends:
            raw = end.get_extra_info("socket")  # None: closed already
            with suppress(OSError, AttributeError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
        self._ends.clear()
        self.cut_done.set()

    def cut_after(self, size: int, *, up: bool) -> None:
        """Cut once so many more bytes have gone up, towards the gateway, or down."""
        self.cut_done.clear()
        self._left[up] = size

    def freeze(self) -> None:
        """Carry nothing on the connections there are, and end none; new ones can be made."""
        self._frozen |= self._ends
        self._ends.clear()
        self._whole.clear()
        self._whole = asyncio.Event()
        self._whole.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        self.connections += 1
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._ends |= {writer, back}
        for source, sink, up in ((reader, back, True), (there, writer, False)):
            self._tasks.start(self._carry(source, sink, self._whole, up), name="cable")

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, whole: asyncio.Event, up: bool
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(PIECE):
                await whole.wait()
                left = self._left[up]
                if left is not None and len(piece) >= left:
                    self._left[up] = None
                    sink.write(piece[:left])
                    await asyncio.sleep(0)
                    self.cut()
                    return
                if left is not None:
                    self._left[up] = left - len(piece)
                self.carried += len(piece) if up else 0
                sink.write(piece)
                await sink.drain()
        sink.close()
