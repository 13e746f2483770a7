"""Answers to what never became a request: the same form as everywhere, and the last on a connection."""

from __future__ import annotations

import time

from penstock.calls.ids import new_id
from penstock.errors import CallError
from penstock.protocol.messages import error_envelope
from penstock.server.exchange import JSON, Header, retry_after


def refusal(error: CallError) -> tuple[list[Header], bytes]:
    """Return the headers and the body that tell of ``error``."""
    body = error_envelope(error, time.time())
    headers = [
        JSON,
        (b"content-length", b"%d" % len(body)),
        *retry_after(error),
        (b"x-request-id", new_id().encode()),
        (b"connection", b"close"),
    ]
    return headers, body
