"""Starlette on uvicorn, as its documentation streams: a `StreamingResponse`, one yield per token."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

TOKENS = 256
ITEM = {"text": "token ", "chunk": "token ", "finished": False}


async def tokens() -> AsyncIterator[str]:
    """Yield the lines of one stream."""
    for _ in range(TOKENS):
        yield json.dumps(ITEM) + "\n"


async def predict(request: Request) -> StreamingResponse:
    """Answer one request."""
    await request.json()
    return StreamingResponse(tokens(), media_type="application/x-ndjson")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(
        app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning", access_log=False, ws="none"
    )
