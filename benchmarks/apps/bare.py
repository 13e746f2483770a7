"""The floor: a bare ASGI app on the same uvicorn.  It encodes each token's frame, joins all of them into one
write, and does nothing else: no checks, no log, no cancel, nothing leaves before the last token is there."""

from __future__ import annotations

from typing import Any

import msgspec
from frames import TOKENS, accepted, answer, completed, cumulative, token
from hosting import serve_asgi

_encode = msgspec.json.encode
SSE = b"text/event-stream"
LENGTHS = {"one": 1}  # of the streams that have another one


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
        as_events = (b"accept", SSE) in scope["headers"]
        headers = [(b"content-type", SSE if as_events else b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": stream(body.command, as_events)})


def stream(command: str, as_events: bool) -> bytes:
    """Return the whole of one stream."""
    tokens = LENGTHS.get(command, TOKENS)
    frame = cumulative if command == "cumulative" else token
    lines = [_encode(accepted(command))]
    for seq in range(1, tokens + 1):
        lines.append(_encode(frame(seq, command)))
    lines.append(_encode(completed(command, tokens)))
    if as_events:
        return b"".join([b"id: %d\ndata: %b\n\n" % numbered for numbered in enumerate(lines)])
    return b"\n".join((*lines, b""))


if __name__ == "__main__":
    serve_asgi(app)
