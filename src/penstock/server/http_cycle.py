"""One request and its answer on uvicorn's HTTP protocol, with more than ASGI says: a whole answer in one
write, heads that are prepared once, and a call when the client leaves.

Plain ASGI needs two messages for an answer, checks each header of each of them, and tells of a client that
left only to whoever waits for that, which takes a task.  The application finds this in the scope's extensions
and falls back to plain ASGI on other servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from penstock.server.exchange import OUTLET_EXTENSION, Header

_NO_BODY = (204, 304)


class Cycle(RequestResponseCycle):
    """See ``penstock.server.exchange.Outlet`` for the part an application sees."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._gone: Callable[[], None] | None = None
        self.scope["extensions"] = {OUTLET_EXTENSION: self}  # type: ignore[dict-item]

    def tell_gone(self) -> None:
        """Say that the client has left."""
        self.disconnected = True
        self.message_event.set()
        if self._gone is not None:
            self._gone()

    # -- Outlet --------------------------------------------------------------------------------------

    def on_gone(self, gone: Callable[[], None]) -> None:
        """See ``Outlet.on_gone``."""
        self._gone = gone
        if self.disconnected:
            gone()

    def forget_gone(self) -> None:
        """See ``Outlet.forget_gone``."""
        self._gone = None

    async def reply(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """See ``Outlet.reply``."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.chunked_encoding = False
        length = (b"content-length", b"%d" % len(body))
        head = self._head(status, (*headers, length))
        if self.scope["method"] == "HEAD":
            body = b""
        self.transport.write(head + body)
        self._complete()

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """See ``Outlet.start``."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.chunked_encoding = self.scope["method"] != "HEAD" and status not in _NO_BODY
        chunked: tuple[Header, ...] = ((b"transfer-encoding", b"chunked"),) if self.chunked_encoding else ()
        self.transport.write(self._head(status, (*headers, *chunked)))

    async def write(self, body: bytes, *, more: bool) -> None:
        """See ``Outlet.write``."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.chunked_encoding:
            part = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(part if more else part + b"0\r\n\r\n")
        if not more:
            self._complete()

    def _head(self, status: int, headers: Iterable[Header]) -> bytes:
        """Return a status line and headers.  They are our own, so nothing in them needs a check."""
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [b"%b: %b\r\n" % header for header in (*self.default_headers, *headers)]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        return b"".join((STATUS_LINE[status], *lines, b"\r\n"))

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
