"""What one writes first over WebSocket: Starlette, `json.dumps`, and one message and one write per token."""

from __future__ import annotations

import json
from typing import Any

import anyio
from frames import TOKENS, accepted, completed, token
from hosting import serve_asgi
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def endpoint(socket: WebSocket) -> None:
    """Answer one socket, its calls side by side."""
    await socket.accept()
    async with anyio.create_task_group() as calls:
        try:
            while True:
                ask = json.loads(await socket.receive_text())
                calls.start_soon(_answer, socket, ask["command"], ask["task_id"])
        except WebSocketDisconnect:
            return


async def _answer(socket: WebSocket, command: str, task_id: str) -> None:
    await _say(socket, accepted(command, task_id))
    for seq in range(1, TOKENS + 1):
        await _say(socket, token(seq, command, task_id))
    await _say(socket, completed(command, task_id=task_id))


async def _say(socket: WebSocket, frame: Any) -> None:
    await socket.send_text(json.dumps(frame, separators=(",", ":")))


app = Starlette(routes=[WebSocketRoute("/v2/ws", endpoint)])

if __name__ == "__main__":
    serve_asgi(app, ws="websockets-sansio")
