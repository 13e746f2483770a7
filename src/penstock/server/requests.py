"""Request bodies and what becomes of them: the bytes of a POST to a ``Start``."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.messages import OnDisconnect, Start, WireForm
from penstock.server.exchange import Exchange
from penstock.server.pump import NDJSON, SSE, StreamForm

SSE_TYPE = "text/event-stream"
NDJSON_TYPE = "application/x-ndjson"


class _Body(msgspec.Struct, frozen=True):
    """The body of `/predict`, `/task` and `/v2/execute`; keys it does not name are ignored, as clients of
    the protocol may send more."""

    command: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    output_config: dict[str, Any] | None = None
    is_stream: bool | None = None
    task_id: str | None = None
    notes: bool | None = None
    on_disconnect: Any = "cancel"
    timeout: float | None = None


_decode = msgspec.json.Decoder(_Body).decode


def read_start(exchange: Exchange, body: bytes, form: WireForm) -> Start:
    """Read a request to run a command.

    Raises:
        CallError: ``invalid_argument``.
    """
    try:
        fields = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CallError(f"the body is not a request: {error}", ErrorCode.INVALID_ARGUMENT) from error
    if form is WireForm.V2 and not fields.command:
        raise CallError(
            "command: field required",
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["command"], "reason": "missing"}],
        )
    return Start(
        command=(fields.command or "") if form is WireForm.V2 else "",
        input=bytes(fields.input) if fields.input != b"null" else b"{}",
        form=form,
        task_id=fields.task_id,
        output_config=fields.output_config or {},
        is_stream=wants_stream(exchange) if fields.is_stream is None else fields.is_stream,
        notes=bool(fields.notes),
        on_disconnect=OnDisconnect.parse(fields.on_disconnect),
        timeout_s=_timeout(exchange) if fields.timeout is None else fields.timeout,
    )


def wants_stream(exchange: Exchange) -> bool:
    """Whether the client asks for a streamed form without saying `is_stream`."""
    accept = exchange.header(b"accept") or ""
    return SSE_TYPE in accept or NDJSON_TYPE in accept


def stream_form(exchange: Exchange) -> StreamForm:
    """Return the form the client asks for."""
    return SSE if SSE_TYPE in (exchange.header(b"accept") or "") else NDJSON


def _timeout(exchange: Exchange) -> float | None:
    text = exchange.header(b"x-request-timeout")
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise CallError(
            f"X-Request-Timeout is a number of seconds, not {text!r}", ErrorCode.INVALID_ARGUMENT
        ) from None
