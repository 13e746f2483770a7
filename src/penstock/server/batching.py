"""uvicorn's WebSocket protocol, with one more message: many text messages in one write.

The stock protocol makes one system call per message.  The extension is named in the scope, so that an
application can fall back to plain sends on other servers.

It also bounds what the stock protocol does not: how long a peer may leave what was written for it, how many
pongs wait for a peer that does not read, what empty fragments cost; and it logs nothing that a peer sent.
Compression is not offered: streams are never compressed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.server import ServerProtocol

from penstock.errors import FAULTS, CallError, ErrorCode
from penstock.server.refusal import refusal
from penstock.server.slow_peer import LEAVE_S, SLOW_READER_S, STOP_S, SlowPeer, unsent

BATCH_EXTENSION = "penstock.websocket.batch"
BATCH_MESSAGE = "penstock.websocket.send"

_TEXT = 0x81  # FIN and the opcode for text: RFC 6455 section 5.2


def frame_head(size: int) -> bytes:
    """Return the header of an unmasked text message of ``size`` bytes (RFC 6455 section 5.2)."""
    if size < 126:
        return bytes((_TEXT, size))
    if size < 65536:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big")
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big")


_HEADS = tuple(frame_head(size) for size in range(1024))  # most frames are this small


def join_messages(lines: Sequence[bytes]) -> bytes:
    """Return ``lines`` as text messages, ready for the socket."""
    parts = [b""] * (2 * len(lines))
    parts[1::2] = lines
    try:
        parts[::2] = map(_HEADS.__getitem__, map(len, lines))
    except IndexError:
        parts[::2] = [frame_head(len(line)) for line in lines]
    return b"".join(parts)


class Connection(ServerProtocol):
    """The state of one connection, of the library websockets."""

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        """Return what a handshake is answered that comes to nothing, in our own form."""
        code = {403: ErrorCode.PERMISSION_DENIED, 500: ErrorCode.INTERNAL}.get(
            int(status), ErrorCode.INVALID_ARGUMENT
        )
        error = CallError(text.strip() or "there is no WebSocket at this path", code)
        headers, body = refusal(error)
        named = Headers([(name.decode(), value.decode()) for name, value in headers])
        return Response(FAULTS[code].http, code.value, named, body)

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame.  A close may stand between the fragments of a message, as any control frame (RFC 6455
        section 5.4); the library takes that for a fault."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class BatchingWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol, plus ``penstock.websocket.send`` with ``lines``.

    Args:
        slow_reader_s: Seconds after which a peer that takes nothing of what waits for it is dropped.
    """

    def __init__(self, *args: Any, slow_reader_s: float = SLOW_READER_S, **named: Any) -> None:
        super().__init__(*args, **named)
        self.conn = Connection(max_size=self.config.ws_max_size, logger=logging.getLogger("uvicorn.error"))
        self.conn.debug = False  # it would log what is sent
        self._slow_reader_s = slow_reader_s
        self._owed_pong = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look after the peer from now on."""
        super().connection_made(transport)
        self._peer = SlowPeer(transport, self._slow_reader_s, "WebSocket")

    def handle_connect(self, event: Any) -> None:
        """Announce the extension in the scope of a connection that was accepted."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[BATCH_EXTENSION] = {}

    async def send(self, message: Any) -> None:
        """Write an ASGI message, or a batch."""
        if message["type"] != BATCH_MESSAGE:
            await super().send(message)
            if message["type"] == "websocket.http.response.body":
                self.handshake_complete = True  # the stock protocol forgets it, and logs that as an error
            return
        await self.writable.wait()
        if self.disconnected or self.close_sent or self.transport.is_closing():
            raise ClientDisconnected
        self.transport.write(join_messages(message["lines"]))

    # -- what comes ----------------------------------------------------------------------------------

    def handle_cont(self, event: Any) -> None:
        """Join fragments as they come: empty ones cost nothing, however many there are."""
        frames: list[Any] = self.frames
        if type(frames[0]) is not bytearray:
            frames[0] = bytearray(frames[0])
        frames[0] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """Hand a message over.  One that is not UTF-8 closes the connection (RFC 6455 section 8.1)."""
        data, self.frames = self.frames[0], []
        if self.close_sent:  # the application has done with it; what still comes is passed over
            return
        try:
            self.queue.put_nowait(self._event(data))
        except UnicodeDecodeError:
            self.conn.send_close(1007, "text must be UTF-8")
            self.handle_parser_exception()
            return
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _event(self, data: bytes | bytearray) -> Any:
        if self.curr_msg_data_type == "text":
            return {"type": "websocket.receive", "text": data.decode()}
        return {"type": "websocket.receive", "bytes": bytes(data)}

    def handle_ping(self) -> None:
        """Answer; while the peer does not read, only the latest ping is owed an answer (section 5.5.3)."""
        output = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(output))
        elif output:
            self._owed_pong = output[-1]

    # -- a peer that does not read, or leaves --------------------------------------------------------

    def pause_writing(self) -> None:
        """Note since when the peer takes nothing."""
        super().pause_writing()
        self._peer.stalled()

    def resume_writing(self) -> None:
        """The peer reads."""
        self._peer.reads()
        if self._owed_pong:
            owed, self._owed_pong = self._owed_pong, b""
            self.transport.write(owed)
        super().resume_writing()

    def eof_received(self) -> None:
        """Take a half-close for leaving, at once: what is unsent would hold the connection open."""
        if unsent(self.transport):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application."""
        self._peer.gone()
        super().connection_lost(exc)

    def keepalive_timeout(self) -> None:
        """Close the connection of a peer that does not answer pings, whatever it has not read."""
        if self.read_paused:  # it may have answered: it is the application that is behind
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self._peer.leave_within(0)

    def handle_close(self, event: Any) -> None:
        """Close in order, within a bounded time."""
        super().handle_close(event)
        self._peer.leave_within(LEAVE_S)

    def handle_parser_exception(self) -> None:
        """Close for a fault of the peer's, within a bounded time."""
        super().handle_parser_exception()
        self._peer.leave_within(LEAVE_S)

    def shutdown(self) -> None:
        """Close as the server stops."""
        super().shutdown()
        self._peer.leave_within(STOP_S)
