"""Probes over HTTP, for what starts and stops a runner: whether it lives, is ready, and has started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import anyio

from penstock.errors import PenstockError

REQUEST_S = 5.0  # how long a request may take
MAX_REQUEST = 8 * 1024  # bytes
PATH = b"/healthz/"

Probe = Callable[[], bool]


class Probes:
    """Answers ``GET /healthz/liveness`` and the like: 200 where it is so, 503 where it is not.

    Args:
        host: Address to listen on.
        port: 0 takes a free one.
        probes: By the last part of the path.
    """

    def __init__(self, host: str, port: int, probes: Mapping[str, Probe]) -> None:
        self._host = host
        self._port = port
        self._probes = probes
        self._server: asyncio.Server | None = None

    @property
    def where(self) -> str:
        """Its URL; empty while it does not listen."""
        if self._server is None:
            return ""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            PenstockError: The port cannot be had.
        """
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=MAX_REQUEST)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            text = f"{where} cannot be listened on ({error}); choose another with --health"
            raise PenstockError(text) from error

    async def aclose(self) -> None:
        """Stop."""
        if self._server is not None:
            self._server.close()
            with anyio.move_on_after(1.0):  # from Python 3.12 on this waits for who is still connected
                await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with anyio.move_on_after(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever it was has gone, or speaks no HTTP
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        probe = self._probes.get(path.removeprefix(PATH).decode("latin-1")) if path.startswith(PATH) else None
        if method not in (b"GET", b"HEAD") or probe is None:
            status = b"404 Not Found"
        else:
            status = b"200 OK" if probe() else b"503 Service Unavailable"
        return b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def read_where(text: str) -> tuple[str, int]:
    """Read where probes are answered: a port of this machine's own address, or an address and a port.

    Raises:
        ValueError: It is neither.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"--health {text[:100]!r} is no port and no HOST:PORT, such as 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(port)
