"""A relay that cuts its first connection behind a number of bytes from the server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from penstock.calls.tasks import TaskOwner


class Cutter:
    """Forwards connections to a server; ``async with`` gives the address in the place of the server's.

    Args:
        url: Of the server.
        after: Bytes towards the client after which its first connection is cut; None: never.
        final: Whether nobody can connect again after the cut.

    Attributes:
        connections: How many were made.
        carried: Bytes that went towards the client on the first.
    """

    def __init__(self, url: str, after: int | None = None, *, final: bool = False) -> None:
        parts = urlsplit(url)
        self._scheme, self._server = parts.scheme, (parts.hostname, parts.port)
        self._after = after
        self._final = final
        self._tasks = TaskOwner()
        self.connections = 0
        self.carried = 0

    async def __aenter__(self) -> str:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"{self._scheme}://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._tasks.aclose()
        await self._listener.wait_closed()

    async def cut(self) -> None:
        """End all connections there are."""
        await self._tasks.aclose()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.start(self._relay(reader, writer, first=self.connections == 1))

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, first: bool
    ) -> None:
        try:
            there, back = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        up = self._tasks.start(_copy(reader, back))
        left = self._after if first else None
        try:
            while left != 0 and (data := await there.read(left or 65536)):
                left = None if left is None else left - len(data)
                self.carried += len(data) if first else 0
                writer.write(data)
            if left == 0 and self._final:
                self._listener.close()
        except ConnectionError:
            pass  # the server reset it, as it may
        finally:
            up.cancel()
            writer.close()
            back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()
