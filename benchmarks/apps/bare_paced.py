"""The floor of paced streams: a bare ASGI app that writes each token's frame when it is due."""

from __future__ import annotations

from typing import Any

import msgspec
from frames import accepted, completed, token
from hosting import serve_asgi
from pace import GAP_S, Pace

COMMAND = "paced"
_encode = msgspec.json.encode


class Input(msgspec.Struct):
    """The input of `paced`."""

    tokens: int


class Body(msgspec.Struct):
    """What a request says."""

    input: Input


_body = msgspec.json.Decoder(Body).decode


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    tokens = _body((await receive())["body"]).input.tokens
    headers = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await _say(send, accepted(COMMAND))
    pace = Pace()
    for seq in range(1, tokens + 1):
        await pace(GAP_S)
        await _say(send, token(seq, COMMAND))
    await _say(send, completed(COMMAND, tokens), more=False)


async def _say(send: Any, frame: Any, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": _encode(frame) + b"\n", "more_body": more})


if __name__ == "__main__":
    serve_asgi(app)
