"""What an HTTP request asks for beside its body: the form of the answer, the time it may take."""

from __future__ import annotations

import re

from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import NDJSON_TYPE, SSE_TYPE
from penstock.protocol.messages import Start, WireForm
from penstock.protocol.requests import MAX_NAME, read_body, read_default_body, read_workflow_body
from penstock.server.exchange import Exchange
from penstock.server.pump import NDJSON, SSE, StreamForm

_SECONDS = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def read_start(exchange: Exchange, body: bytes, form: WireForm) -> Start:
    """Read a request to run a command.

    Raises:
        CallError: ``invalid_argument``.
    """
    stream, timeout_s = wants_stream(exchange), timeout_of(exchange)
    if form is WireForm.V1:
        return read_default_body(body).start(form, stream=stream, timeout_s=timeout_s)
    fields = read_body(body)
    return fields.start(form, command=fields.named(), stream=stream, timeout_s=timeout_s)


def read_workflow_start(exchange: Exchange, body: bytes) -> Start:
    """Read a request to run a workflow.

    Raises:
        CallError: ``invalid_argument``.
    """
    fields = read_workflow_body(body)
    return fields.start(
        WireForm.V2,
        workflow_id=fields.named(),
        stream=wants_stream(exchange),
        timeout_s=timeout_of(exchange),
    )


def read_named_start(
    exchange: Exchange, body: bytes, *, command: str = "", workflow_id: str | None = None
) -> Start:
    """Read a request to run what its path names.

    Raises:
        CallError: ``invalid_argument``; ``not_found``, nothing has so long a name.
    """
    named = command or workflow_id or ""
    if len(named) > MAX_NAME:
        raise CallError(f"there is nothing of the name {named[:40]!r}…", ErrorCode.NOT_FOUND)
    return read_default_body(body).start(
        WireForm.V2,
        command=command,
        workflow_id=workflow_id,
        stream=wants_stream(exchange),
        timeout_s=timeout_of(exchange),
    )


def wants_stream(exchange: Exchange) -> bool:
    """Whether the client asks for a streamed form without saying `is_stream`."""
    accept = exchange.header(b"accept") or ""
    return SSE_TYPE in accept or NDJSON_TYPE in accept


def stream_form(exchange: Exchange) -> StreamForm:
    """Return the form the client asks for."""
    return SSE if SSE_TYPE in (exchange.header(b"accept") or "") else NDJSON


def timeout_of(exchange: Exchange) -> float | None:
    """Return the budget of a call, in seconds, that a header asks for.

    Raises:
        CallError: ``invalid_argument``.
    """
    text = exchange.header(b"x-request-timeout")
    if text is None:
        return None
    if not _SECONDS.fullmatch(text):  # float() would take 'nan', '1_000' and 'infinity'
        raise CallError(
            f"X-Request-Timeout is a number of seconds, not {text[:40]!r}", ErrorCode.INVALID_ARGUMENT
        )
    return float(text)
