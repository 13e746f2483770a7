"""uvicorn's WebSocket protocol, with one more message: many text messages in one write.

The stock protocol makes one system call per message.  The extension is named in the scope, so that an
application can fall back to plain sends on other servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

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
    parts = [
        part
        for line in lines
        for part in ((_HEADS[len(line)] if len(line) < 1024 else frame_head(len(line))), line)
    ]
    return b"".join(parts)


class BatchingWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol, plus ``penstock.websocket.send`` with ``lines``."""

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
            return
        await self.writable.wait()
        if self.disconnected or self.close_sent:
            raise ClientDisconnected
        self.transport.write(join_messages(message["lines"]))
