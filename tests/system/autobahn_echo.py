"""An echo server for the conformance suite: `python autobahn_echo.py ours|stock PORT`."""

from __future__ import annotations

import logging
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from penstock.server.batching import BATCH_EXTENSION, BATCH_MESSAGE, BatchingWebSocket

PROTOCOLS = {"ours": BatchingWebSocket, "stock": WebSocketsSansIOProtocol}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send every message back, over the batch extension where there is one."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        elif BATCH_EXTENSION in scope["extensions"]:
            await send({"type": BATCH_MESSAGE, "lines": [text.encode()]})
        else:
            await send({"type": "websocket.send", "text": text})


if __name__ == "__main__":
    logging.disable()  # the suite sends garbage by the hundred, and stock uvicorn logs each with a traceback
    uvicorn.run(
        echo,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        ws=PROTOCOLS[sys.argv[1]],
        ws_max_size=16 * 1024 * 1024,
        ws_per_message_deflate=False,
        log_config=None,
    )
