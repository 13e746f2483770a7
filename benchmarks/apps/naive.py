"""What one writes first: Starlette, a StreamingResponse, `json.dumps` and one yield per token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from frames import TOKENS, accepted, answer, completed, token
from hosting import serve_asgi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


def _line(frame: object) -> str:
    return json.dumps(frame, separators=(",", ":")) + "\n"


async def _tokens(command: str) -> AsyncIterator[str]:
    yield _line(accepted(command))
    for seq in range(1, TOKENS + 1):
        yield _line(token(seq, command))
    yield _line(completed(command))


async def execute(request: Request) -> Response:
    """Answer one request."""
    body = await request.json()
    if body["command"] == "add":
        return JSONResponse(answer(body["input"]["a"] + body["input"]["b"]))
    return StreamingResponse(_tokens(body["command"]), media_type="application/x-ndjson")


app = Starlette(routes=[Route("/v2/execute", execute, methods=["POST"])])

if __name__ == "__main__":
    serve_asgi(app)
