"""Errors in OpenAI's shape."""

from __future__ import annotations

import msgspec

from penstock.errors import FAULTS, CallError, ErrorCode
from penstock.protocol.call import Ending

_TYPES = {
    ErrorCode.UNAUTHENTICATED: "authentication_error",
    ErrorCode.PERMISSION_DENIED: "permission_error",
    ErrorCode.NOT_FOUND: "not_found_error",
    ErrorCode.RESOURCE_EXHAUSTED: "rate_limit_error",
}
_SERVER_FAULT = 500


def openai_error(error: CallError) -> bytes:
    """Return an error as JSON; its ``code`` is ours, its ``param`` the field that is wrong."""
    server = FAULTS[error.code].http >= _SERVER_FAULT
    kind = _TYPES.get(error.code, "server_error" if server else "invalid_request_error")
    paths = [detail.get("path") for detail in error.details]
    param = next((".".join(map(str, path)) for path in paths if path), None)
    body = {"message": error.message, "type": kind, "param": param, "code": error.code.value}
    return msgspec.json.encode({"error": body})


def error_of(ending: Ending) -> CallError | None:
    """Return why a call did not complete; None if it did.  OpenAI's clients know no cancelled answers."""
    if ending.reason is not None and ending.error is None:
        return CallError(f"the call was cancelled ({ending.reason.value})", ErrorCode.CANCELLED)
    return ending.error
