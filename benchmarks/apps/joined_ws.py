"""The limit over WebSocket: it encodes each token's frame, puts the bytes of its message before it by hand,
and writes all of them at once.  No WebSocket library stands between, and nothing else is done: no checks, no
log, no cancel, no bounds; nothing leaves before the last token is there."""

from __future__ import annotations

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


class Joining(WebSocketsSansIOProtocol):
    """uvicorn's protocol, plus a message whose bytes go to the socket as they are."""

    async def send(self, message: Any) -> None:
        """Write a message."""
        if message["type"] == "joined":
            await self.writable.wait()
            self.transport.write(message["data"])
        else:
            await super().send(message)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one socket."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        ask = _ask(message["text"])
        await send({"type": "joined", "data": _stream(ask.command, ask.task_id)})


def _stream(command: str, task_id: str) -> bytes:
    lines = [_encode(accepted(command, task_id))]
    for seq in range(1, TOKENS + 1):
        lines.append(_encode(token(seq, command, task_id)))
    lines.append(_encode(completed(command, task_id=task_id)))
    return b"".join([part for line in lines for part in (_head(len(line)), line)])


def _head(size: int) -> bytes:
    return bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")


if __name__ == "__main__":
    serve_asgi(app, ws=Joining)
