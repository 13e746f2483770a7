"""The floor: a bare ASGI app on the same uvicorn.  It encodes each token's frame, joins all of them into one
write, and does nothing else: no checks, no log, no cancel, nothing leaves before the last token is there."""

from __future__ import annotations

from typing import Any

import msgspec
from frames import TOKENS, accepted, answer, completed, token
from hosting import serve_asgi

_encode = msgspec.json.encode
STREAM = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/x-ndjson")],
}


class Numbers(msgspec.Struct):
    """The input of `add`."""

    a: int
    b: int


class Body(msgspec.Struct):
    """What a request says."""

    command: str
    input: msgspec.Raw


_body = msgspec.json.Decoder(Body).decode
_numbers = msgspec.json.Decoder(Numbers).decode


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    body = _body((await receive())["body"])
    if body.command == "add":
        numbers = _numbers(body.input)
        text = _encode(answer(numbers.a + numbers.b))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
    else:
        await send(STREAM)
        await send({"type": "http.response.body", "body": _stream(body.command)})


def _stream(command: str) -> bytes:
    lines = [_encode(accepted(command))]
    for seq in range(1, TOKENS + 1):
        lines.append(_encode(token(seq, command)))
    return b"\n".join((*lines, _encode(completed(command)), b""))


if __name__ == "__main__":
    serve_asgi(app)
