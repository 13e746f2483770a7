"""The floor over WebSocket: a bare ASGI app that sends each token as a message, on uvicorn's own protocol
class before a transport that joins what is written within a turn of the event loop.  It does nothing else: no
checks, no log, no cancel, no bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from frames import TOKENS, accepted, completed, token
from hosting import serve_asgi
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_encode = msgspec.json.encode


class Ask(msgspec.Struct):
    """What a message says."""

    command: str
    task_id: str


_ask = msgspec.json.Decoder(Ask).decode


class JoiningTransport:
    """Passes everything on, and what is written once per turn."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write later in this turn."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        self._transport.write(b"".join(parts))


class Joining(WebSocketsSansIOProtocol):
    """uvicorn's protocol before such a transport."""

    def connection_made(self, transport: Any) -> None:
        """Put it between."""
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one socket."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        ask = _ask(message["text"])
        await _say(send, accepted(ask.command, ask.task_id))
        for seq in range(1, TOKENS + 1):
            await _say(send, token(seq, ask.command, ask.task_id))
        await _say(send, completed(ask.command, task_id=ask.task_id))


async def _say(send: Any, frame: Any) -> None:
    await send({"type": "websocket.send", "text": _encode(frame).decode()})


if __name__ == "__main__":
    serve_asgi(app, ws=Joining)
