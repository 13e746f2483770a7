"""An echo server for the conformance suite; it prints its port."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any

import uvicorn

from penstock.server.batching import BATCH_MESSAGE, BatchingWebSocket


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send every message back, text over the batch extension."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": BATCH_MESSAGE, "lines": [text.encode()]})


async def serve() -> None:
    """Serve until this process is told to stop."""
    config = uvicorn.Config(
        echo,
        ws=BatchingWebSocket,
        ws_max_size=16 * 1024 * 1024,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    logging.disable()  # the suite sends garbage by the hundred, and uvicorn logs each with a traceback
    asyncio.run(serve())
