"""uvicorn's HTTP protocol, bounded: in size, in time, and in what it takes for a request.

The stock protocol stops reading while requests wait behind the one it answers, and so never sees that the
client has left; it waits for ever for a head or a body that does not come; it takes heads of any size; it
hands trailers to a handler that may have read the headers already; it takes the body of a request that asks
for an unknown upgrade for the next request.
"""

from __future__ import annotations

import asyncio
import enum
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from penstock.errors import FAULTS, CallError, ErrorCode
from penstock.server.descriptors import MOST_CONNECTIONS
from penstock.server.framing import Boundary
from penstock.server.http_checks import Head, bad_request, check_head, check_probe
from penstock.server.http_cycle import Cycle
from penstock.server.refusal import refusal
from penstock.server.settings import ServerSettings
from penstock.server.slow_peer import LEAVE_S, STOP_S, SlowPeer

LINGER_S = 5.0  # how long a client that was answered early may go on sending what is not read any more
FRAMING_OVERHEAD = 16 * 1024  # bytes of a chunked body that may be chunk headers and trailers, besides ...
FRAMING_RATIO = 8  # ... so many for each byte of data
PLACES_FOR_PROBES = 64  # connections beyond those that a server takes: probes must be answered even so


class Phase(enum.Enum):
    """What is expected from the client."""

    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"  # nothing: it is our turn
    OVER = "over"  # what still comes is passed over


HEAD, BODY, ANSWER, OVER = Phase  # looked up for every request


class Outlet(NamedTuple):
    """The transport as the answering side sees it: to close it is to take leave."""

    write: Any
    is_closing: Any
    close: Any


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        settings: The limits.
        most_connections: From how many on, over all, requests are refused, save probes.
        refused: Told of each answer to what did not become a request.
    """

    cycle: Cycle

    def __init__(
        self,
        *args: Any,
        settings: ServerSettings,
        most_connections: int = MOST_CONNECTIONS,
        refused: Callable[[CallError], None] = lambda _: None,
        **named: Any,
    ) -> None:
        super().__init__(*args, **named)
        self._settings = settings
        self._most_connections = most_connections
        self._crowded = False  # there were as many connections as there may be when this one came
        self._refused = refused
        self._max_header = settings.max_header
        self._phase = HEAD
        self._boundary = Boundary()
        self._ahead = bytearray()  # what the client sent before its turn
        self._head_size = 0
        self._chunked = False
        self._framing = 0  # bytes of a chunked body that are not data, less those allowed for its data
        self._keep = True  # whether another request may follow
        self._fault: CallError | None = None  # raised in a callback of the parser, which would hide it
        self._timer: asyncio.TimerHandle | None = None

    # -- the connection ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, not for ever."""
        super().connection_made(transport)
        self._crowded = len(self.connections) > self._most_connections
        if len(self.connections) > self._most_connections + PLACES_FOR_PROBES:
            transport.abort()
        self._peer = SlowPeer(transport, self._settings.slow_reader_s, "HTTP")
        self._outlet = Outlet(transport.write, transport.is_closing, self._leave)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application."""
        self._stop_timer()
        self._peer.gone()
        asked, self._phase = self._phase in (BODY, ANSWER), OVER
        self._ahead.clear()
        super().connection_lost(exc)
        if asked:
            self.cycle.tell_gone()

    def eof_received(self) -> None:
        """Take a half-close for leaving, at once: what is unsent would hold the connection open."""
        if self._phase in (BODY, ANSWER):
            self._tell_handler()  # a turn of the event loop before the transport would
            self.transport.abort()
        else:
            self._peer.leave_within(LEAVE_S)  # asyncio closes behind what is unsent

    def pause_writing(self) -> None:
        """Note since when the peer takes nothing."""
        super().pause_writing()
        self._peer.stalled()

    def resume_writing(self) -> None:
        """The peer reads."""
        self._peer.reads()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close as the server stops: at once, or behind the answer that is due."""
        self._keep = False
        if self._phase is BODY or (self._phase is HEAD and self._head_size):
            self._refuse(CallError("the server is stopping", ErrorCode.UNAVAILABLE, retry_after_s=1))
        else:
            super().shutdown()
        if self._phase is OVER:
            self.transport.close()
        self._peer.leave_within(STOP_S)

    # -- what comes ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes, of one request at a time."""
        self._unset_keepalive_if_required()
        if self._phase is OVER:
            return
        taken = self._take(data)
        if taken < len(data):
            self._wait_for_turn(data[taken:])

    def _wait_for_turn(self, data: bytes) -> None:
        """Keep what is sent ahead.  Reading goes on, as nothing else tells that a client has left; who sends
        more ahead than is kept is taken for one that does not want its answer."""
        self._ahead += data
        if len(self._ahead) > self._settings.max_ahead:
            self.logger.warning("a client sent too much ahead of its turn; it is dropped")
            self.transport.abort()

    def _take(self, data: bytes | bytearray) -> int:
        """Parse ``data`` up to the end of a request; return how much that was."""
        at = 0
        try:
            while at < len(data) and (self._phase is HEAD or self._phase is BODY):
                at = self._parse(data, at)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return len(data)  # there is no next request
        except httptools.HttpParserError:
            self._refuse(self._fault or bad_request("it is not HTTP/1.1"))
        except CallError as error:
            self._refuse(error)
        if self._phase is OVER:
            return len(data)
        self._set_timer()
        return at

    def _parse(self, data: bytes | bytearray, begin: int) -> int:
        end = self._boundary.cut(data, begin)
        part = bytes(data[begin:end])
        if self._phase is HEAD:
            self._parse_head(part)
        elif self._chunked:
            self._parse_chunks(part)
        else:
            self.parser.feed_data(part)
        return end

    def _parse_head(self, part: bytes) -> None:
        room = self._max_header - self._head_size
        self._head_size += len(part)
        if len(part) <= room:
            self.parser.feed_data(part)
            return
        self.parser.feed_data(part[:room])  # of a target that is too long, that is told
        raise CallError(
            f"the head of the request is larger than {self._max_header} bytes", ErrorCode.HEADERS_TOO_LARGE
        )

    def _parse_chunks(self, part: bytes) -> None:
        self._framing += len(part)
        self.parser.feed_data(part)
        if self._framing > FRAMING_OVERHEAD:
            raise CallError("the body is hardly more than its framing", ErrorCode.TOO_LARGE)

    def _upgrade(self) -> None:
        """Switch to WebSocket.  Whatever else the client wishes for, it is answered in HTTP, and that is the
        last answer: the parser cannot tell any more where the next request begins."""
        self._stop_timer()
        if self._should_upgrade():
            self._phase = OVER
            self.handle_websocket_upgrade()

    # -- callbacks of the parser ---------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        super().on_url(url)
        if len(self.url) > self._settings.max_uri:
            self._fail(
                CallError(f"the URI is longer than {self._settings.max_uri} bytes", ErrorCode.URI_TOO_LONG)
            )

    def on_headers_complete(self) -> None:
        """Check how the request is framed, then start to answer it."""
        headers = dict(self.headers)
        self._check(headers)
        if self.parser.should_upgrade() and self._should_upgrade():
            super().on_headers_complete()
            return
        self._complete_scope()
        self._begin_cycle()
        self.headers = []  # for trailers, which are no headers: whoever handles the request has had those
        self._phase = BODY
        self._chunked = b"transfer-encoding" in headers
        if self._chunked:
            self._framing = 0
            self._boundary.chunked()
        else:
            self._boundary.sized(int(headers.get(b"content-length", 0)))

    def _complete_scope(self) -> None:
        """Say what is asked for (ASGI specification, HTTP connection scope)."""
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        if (version := self.parser.get_http_version()) != "1.1":
            scope["http_version"] = version
        target = httptools.parse_url(self.url)
        path = target.path.decode("ascii")
        scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        scope["raw_path"] = target.path
        scope["query_string"] = target.query or b""

    def _begin_cycle(self) -> None:
        # An answer that comes before the whole request says that it is the last.
        version = self.scope["http_version"]
        self._keep = version != "1.0" and self.parser.should_keep_alive() and not self.parser.should_upgrade()
        self.cycle = Cycle(
            scope=self.scope,
            transport=self._outlet,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._framing -= len(body) * (1 + FRAMING_RATIO)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there: the next one must wait for its answer."""
        super().on_message_complete()
        # A large body has paused it; whoever leaves from now on is noticed by reading only.
        self.flow.resume_reading()
        if self._phase is BODY:
            self._phase = ANSWER
            self._head_size = 0
            if not self.cycle.response_started:
                self.cycle.keep_alive = self._keep

    def _check(self, headers: dict[bytes, bytes]) -> None:
        upgrades = self.parser.should_upgrade()
        version, method = self.parser.get_http_version(), self.parser.get_method()
        websocket = upgrades and self._should_upgrade()
        try:
            if self._crowded:
                check_probe(self.url, self._most_connections)
            check_head(Head(version, method, self.url, self.headers, headers, upgrades, websocket))
        except CallError as error:
            self._fail(error)

    def _fail(self, error: CallError) -> None:
        self._fault = error
        raise error

    # -- answers -------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Turn to the next request."""
        super().on_response_complete()
        if self._phase is OVER:
            self._unset_keepalive_if_required()
        elif not self.transport.is_closing():
            self._phase = HEAD
            self._boundary.head()
            self._take_ahead()

    def _take_ahead(self) -> None:
        if self._ahead:
            self._unset_keepalive_if_required()
            del self._ahead[: self._take(self._ahead)]

    def send_400_response(self, msg: str) -> None:
        """Answer in our own form."""
        self._refuse(bad_request("it is not HTTP/1.1"))

    def _refuse(self, error: CallError) -> None:
        """Answer what did not become a request, and close."""
        answering = self._phase in (BODY, ANSWER)
        if answering:
            self._tell_handler()
        if not (answering and self.cycle.response_started):
            self.transport.write(self._reply(error))
            self._refused(error)
        self._linger()

    def _tell_handler(self) -> None:
        """Let the handler know that nobody is there for it any more."""
        self.cycle.tell_gone()
        self.flow.resume_writing()

    def _reply(self, error: CallError) -> bytes:
        headers, body = refusal(error)
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        return b"".join((STATUS_LINE[FAULTS[error.code].http], *lines, b"\r\n", body))

    def _leave(self) -> None:
        """Close behind the answer."""
        if self._phase is BODY:
            self._linger()
        else:
            self.transport.close()
            self._peer.leave_within(LEAVE_S)

    def _linger(self) -> None:
        """Close our direction, and pass over what still comes: a connection that is closed with bytes unread
        is reset, and the answer may be lost with it (RFC 9112 section 9.6)."""
        self._phase = OVER
        self._ahead.clear()
        self._stop_timer()
        if self.transport.is_closing():
            return
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.flow.resume_reading()
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    # -- slow senders --------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Bound the whole time of a head, and the silences of a body."""
        if self._phase is HEAD and self._head_size:
            if self._timer is None:
                self._timer = self.loop.call_later(self._settings.header_s, self._too_slow)
            return
        self._stop_timer()
        if self._phase is BODY:
            self._timer = self.loop.call_later(self._settings.body_idle_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # it is the application that is behind
            self._set_timer()
            return
        what, limit_s = ("head", self._settings.header_s)
        if self._phase is BODY:
            what, limit_s = ("next part of the body", self._settings.body_idle_s)
        self._refuse(CallError(f"the {what} did not come within {limit_s:g} s", ErrorCode.REQUEST_TIMEOUT))
