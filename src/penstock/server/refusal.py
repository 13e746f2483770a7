"""Answers to what never became a request: the same form as everywhere, and the last on a connection."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from penstock.calls.ids import new_id
from penstock.errors import FAULTS, CallError
from penstock.protocol.messages import error_envelope
from penstock.server.exchange import JSON, Header, Send, advice


def refusal(error: CallError) -> tuple[list[Header], bytes]:
    """Return the headers and the body that tell of ``error``."""
    body = error_envelope(error, time.time())
    headers = [
        JSON,
        (b"content-length", b"%d" % len(body)),
        *advice(error),
        (b"x-request-id", new_id().encode()),
        (b"connection", b"close"),
    ]
    return headers, body


async def refuse_socket(error: CallError, scope: MutableMapping[str, Any], send: Send) -> None:
    """Answer a WebSocket's handshake in HTTP; where a server cannot do that, it is a plain 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    headers, body = refusal(error)
    status = FAULTS[error.code].http
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
