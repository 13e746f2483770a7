"""Every error penstock raises or sends, in one tree and one table.

::

    PenstockError
    ├── AuthoringError           an author's mistake, refused at start-up with the fix in the message
    │   └── ManifestError        ... in manifest.yml, with file and line
    ├── ProtocolError            the rules of a call's life were broken
    │   ├── LocalProtocolError   ... by this side: a bug here
    │   └── RemoteProtocolError  ... by the peer
    ├── CallError                a call was refused or failed; carries a code of the table
    │   ├── CommandError         raised by an author: its text is shown to the caller
    │   ├── ReplayTruncated      the frames asked for are no longer kept
    │   └── ConnectionFailed     no server answered
    ├── CallCancelled            a call the client waited for was cancelled
    └── StreamTruncated          a stream ended without its terminal frame

``FAULTS`` is the only place that says how a code looks on each wire (WIRE.md section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple


class ErrorCode(str, Enum):
    """Machine-readable reason of a failure; the first five are those of the typed protocol v0.1."""

    INVALID_ARGUMENT = "invalid_argument"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_IMPLEMENTED = "not_implemented"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    FAILED_PRECONDITION = "failed_precondition"
    GONE = "gone"
    TOO_LARGE = "too_large"
    URI_TOO_LONG = "uri_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    REQUEST_TIMEOUT = "request_timeout"
    CANCELLED = "cancelled"
    COMMAND_FAILED = "command_failed"
    INVALID_OUTPUT = "invalid_output"
    INTERNAL = "internal"
    UPSTREAM_FAILED = "upstream_failed"
    KV_TRANSFER_FAILED = "kv_transfer_failed"
    COMM_TIMEOUT = "comm_timeout"
    DISTRIBUTED_RUNTIME_ERROR = "distributed_runtime_error"

    # A plain Enum prints its member name; str-mixins changed format() between Python 3.10 and 3.12.
    __str__ = Enum.__str__

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


class Fault(NamedTuple):
    """How one error code shows on each wire."""

    http: int
    grpc: str
    ws_close: int | None
    retryable: bool


FAULTS: Mapping[ErrorCode, Fault] = MappingProxyType(
    {
        ErrorCode.INVALID_ARGUMENT: Fault(400, "INVALID_ARGUMENT", None, False),
        ErrorCode.UNAUTHENTICATED: Fault(401, "UNAUTHENTICATED", 1008, False),
        ErrorCode.PERMISSION_DENIED: Fault(403, "PERMISSION_DENIED", 1008, False),
        ErrorCode.NOT_FOUND: Fault(404, "NOT_FOUND", None, False),
        ErrorCode.METHOD_NOT_ALLOWED: Fault(405, "UNIMPLEMENTED", None, False),
        ErrorCode.CONFLICT: Fault(409, "ABORTED", None, False),
        ErrorCode.FAILED_PRECONDITION: Fault(409, "FAILED_PRECONDITION", None, False),
        ErrorCode.GONE: Fault(410, "OUT_OF_RANGE", None, False),
        ErrorCode.TOO_LARGE: Fault(413, "RESOURCE_EXHAUSTED", 1009, False),
        ErrorCode.URI_TOO_LONG: Fault(414, "INVALID_ARGUMENT", None, False),
        ErrorCode.HEADERS_TOO_LARGE: Fault(431, "INVALID_ARGUMENT", None, False),
        ErrorCode.UNSUPPORTED_MEDIA_TYPE: Fault(415, "INVALID_ARGUMENT", 1003, False),
        ErrorCode.REQUEST_TIMEOUT: Fault(408, "DEADLINE_EXCEEDED", None, True),
        ErrorCode.RESOURCE_EXHAUSTED: Fault(429, "RESOURCE_EXHAUSTED", None, True),
        ErrorCode.CANCELLED: Fault(499, "CANCELLED", None, False),
        ErrorCode.COMMAND_FAILED: Fault(500, "INTERNAL", None, False),
        ErrorCode.INVALID_OUTPUT: Fault(500, "INTERNAL", None, False),
        ErrorCode.INTERNAL: Fault(500, "INTERNAL", 1011, False),
        ErrorCode.NOT_IMPLEMENTED: Fault(501, "UNIMPLEMENTED", None, False),
        ErrorCode.UNAVAILABLE: Fault(503, "UNAVAILABLE", 1012, True),
        ErrorCode.DEADLINE_EXCEEDED: Fault(504, "DEADLINE_EXCEEDED", None, True),
        ErrorCode.UPSTREAM_FAILED: Fault(502, "UNAVAILABLE", None, True),
        ErrorCode.KV_TRANSFER_FAILED: Fault(502, "UNAVAILABLE", None, True),
        ErrorCode.COMM_TIMEOUT: Fault(502, "UNAVAILABLE", None, True),
        ErrorCode.DISTRIBUTED_RUNTIME_ERROR: Fault(502, "UNAVAILABLE", None, True),
    }
)


class PenstockError(Exception):
    """Base of every error penstock raises.

    Attributes:
        correlation_id: `X-Request-Id` of the request that a client made in vain; a server logs it too.
    """

    correlation_id: str | None = None


class AuthoringError(PenstockError):
    """An author's mistake, found at start-up; the message says how to fix it."""


class ManifestError(AuthoringError):
    """A mistake in a manifest; the message names the file and, where known, the line."""


class ProtocolError(PenstockError):
    """A step the life of a call does not allow."""


class LocalProtocolError(ProtocolError):
    """This side took the illegal step; nothing was changed."""


class RemoteProtocolError(ProtocolError):
    """The peer took the illegal step; nothing was changed."""


class CallError(PenstockError):
    """A call was refused or failed.

    Args:
        message: What a person reads: what happened, where, and what to do.
        code: Which row of ``FAULTS`` it is.
        retryable: Overrides the table's answer.
        details: Machine-readable parts, such as ``{"path": ["input", "prompt"], "reason": "missing"}``.
        retry_after_s: When a retry is sensible, in seconds.
    """

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        code: ErrorCode | str | None = None,
        *,
        retryable: bool | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        # Authors pass exceptions, and text with half a surrogate pair in it; a frame must not break on them.
        self.message = str(message).encode("utf-8", "backslashreplace").decode()
        super().__init__(self.message)
        self.code = ErrorCode(code) if code is not None else type(self).code
        self.retryable = FAULTS[self.code].retryable if retryable is None else retryable
        self.details = tuple(details)
        self.retry_after_s = retry_after_s

    @property
    def http_status(self) -> int:
        """The HTTP status this error is answered with."""
        return FAULTS[self.code].http


class CommandError(CallError):
    """Raised by an author inside a command; the caller reads its text."""

    code = ErrorCode.COMMAND_FAILED


class ReplayTruncated(CallError):
    """The frames asked for are no longer kept; reading can continue from ``first_seq``."""

    code = ErrorCode.GONE

    def __init__(self, message: str, *, first_seq: int) -> None:
        super().__init__(message)
        self.first_seq = first_seq


class ConnectionFailed(CallError):
    """No server answered, or it went away before it answered; ``sent`` says whether it may have got the
    request."""

    code = ErrorCode.UNAVAILABLE

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class CallCancelled(PenstockError):
    """The call was cancelled before it finished; ``reason`` says by what."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class StreamTruncated(PenstockError):
    """A stream ended without its terminal frame: what arrived may be incomplete."""
