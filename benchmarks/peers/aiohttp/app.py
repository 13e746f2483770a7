"""aiohttp's own server on uvloop, as its documentation streams: a `StreamResponse`, one write per token."""

from __future__ import annotations

import argparse
import json

import uvloop
from aiohttp import web

TOKENS = 256
ITEM = {"text": "token ", "chunk": "token ", "finished": False}


async def predict(request: web.Request) -> web.StreamResponse:
    """Answer one request."""
    await request.json()
    response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
    await response.prepare(request)
    for _ in range(TOKENS):
        await response.write(json.dumps(ITEM).encode() + b"\n")
    await response.write_eof()
    return response


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app = web.Application()
    app.add_routes([web.post("/predict", predict)])
    web.run_app(
        app,
        host="127.0.0.1",
        port=parser.parse_args().port,
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )
