"""Between the errors of calls and Clarifai's statuses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.errors import CallError, ErrorCode

MAX_SAID = 4096  # characters of a text that somebody else has written

_TOLD: Mapping[ErrorCode, tuple[int, str]] = MappingProxyType(
    {
        ErrorCode.INVALID_ARGUMENT: (codes.MODEL_INVALID_ARGUMENT, "Invalid argument"),
        ErrorCode.RESOURCE_EXHAUSTED: (codes.MODEL_BUSY_PLEASE_RETRY, "Model is busy, please retry"),
        ErrorCode.UNAVAILABLE: (codes.MODEL_BUSY_PLEASE_RETRY, "Model is not available, please retry"),
        ErrorCode.DEADLINE_EXCEEDED: (codes.RPC_REQUEST_TIMEOUT, "Timed out"),
        ErrorCode.NOT_IMPLEMENTED: (codes.NOT_IMPLEMENTED, "Not implemented"),
        ErrorCode.UNAUTHENTICATED: (codes.CONN_KEY_INVALID, "Invalid key"),
        ErrorCode.PERMISSION_DENIED: (codes.CONN_INSUFFICIENT_SCOPES, "Insufficient scopes"),
        ErrorCode.NOT_FOUND: (codes.MODEL_DOES_NOT_EXIST, "Model does not exist"),
        ErrorCode.METHOD_NOT_ALLOWED: (codes.CONN_METHOD_NOT_ALLOWED, "Method not allowed"),
        ErrorCode.CONFLICT: (codes.CONN_INVALID_REQUEST, "Invalid request"),
        ErrorCode.FAILED_PRECONDITION: (codes.CONN_INVALID_REQUEST, "Invalid request"),
        ErrorCode.GONE: (codes.CONN_INVALID_RANGE, "Invalid range"),
        ErrorCode.TOO_LARGE: (codes.RPC_MAX_MESSAGE_SIZE_EXCEEDED, "Too large"),
        ErrorCode.URI_TOO_LONG: (codes.CONN_BAD_REQUEST_FORMAT, "Bad request format"),
        ErrorCode.HEADERS_TOO_LARGE: (codes.CONN_BAD_REQUEST_FORMAT, "Bad request format"),
        ErrorCode.UNSUPPORTED_MEDIA_TYPE: (codes.CONN_BAD_REQUEST_FORMAT, "Bad request format"),
        ErrorCode.REQUEST_TIMEOUT: (codes.RPC_REQUEST_TIMEOUT, "Timed out"),
        ErrorCode.CANCELLED: (codes.REQUEST_CANCELED_BY_USER, "Cancelled"),
        ErrorCode.COMMAND_FAILED: (codes.FAILURE, "Failed"),
        ErrorCode.INVALID_OUTPUT: (codes.MODEL_PREDICTION_FAILED, "Model prediction failed"),
        ErrorCode.INTERNAL: (codes.INTERNAL_UNCATEGORIZED, "Internal error"),
        ErrorCode.UPSTREAM_FAILED: (codes.EXTERNAL_CONNECTION_ERROR, "External connection error"),
        ErrorCode.KV_TRANSFER_FAILED: (codes.EXTERNAL_CONNECTION_ERROR, "External connection error"),
        ErrorCode.COMM_TIMEOUT: (codes.EXTERNAL_CONNECTION_ERROR, "External connection error"),
        ErrorCode.DISTRIBUTED_RUNTIME_ERROR: (codes.EXTERNAL_CONNECTION_ERROR, "External connection error"),
    }
)

_HEARD: Mapping[int, ErrorCode] = MappingProxyType(
    {
        codes.RUNNER_PROCESSING_FAILED: ErrorCode.UNAVAILABLE,
        codes.RUNNER_NEEDS_RETRY: ErrorCode.UNAVAILABLE,
        codes.MODEL_BUSY_PLEASE_RETRY: ErrorCode.UNAVAILABLE,
        codes.MODEL_DEPLOYING: ErrorCode.UNAVAILABLE,
        codes.MODEL_QUEUED_FOR_DEPLOYMENT: ErrorCode.UNAVAILABLE,
        codes.MODEL_LOADING: ErrorCode.UNAVAILABLE,
        codes.TRY_AGAIN: ErrorCode.UNAVAILABLE,
        codes.RPC_SERVER_UNAVAILABLE: ErrorCode.UNAVAILABLE,
        codes.CONN_THROTTLED: ErrorCode.RESOURCE_EXHAUSTED,
        codes.CONN_EXCEED_HOURLY_LIMIT: ErrorCode.RESOURCE_EXHAUSTED,
        codes.CONN_EXCEED_MONTHLY_LIMIT: ErrorCode.RESOURCE_EXHAUSTED,
        codes.CONN_EXCEEDS_LIMITS: ErrorCode.RESOURCE_EXHAUSTED,
        codes.RPC_REQUEST_QUEUE_FULL: ErrorCode.RESOURCE_EXHAUSTED,
        codes.CONN_TOKEN_INVALID: ErrorCode.UNAUTHENTICATED,
        codes.CONN_CREDENTIALS_INVALID: ErrorCode.UNAUTHENTICATED,
        codes.CONN_KEY_INVALID: ErrorCode.UNAUTHENTICATED,
        codes.CONN_KEY_NOT_FOUND: ErrorCode.UNAUTHENTICATED,
        codes.CONN_INSUFFICIENT_SCOPES: ErrorCode.PERMISSION_DENIED,
        codes.MODEL_PERMISSION_DENIED: ErrorCode.PERMISSION_DENIED,
        codes.RUNNER_PERMISSION_DENIED: ErrorCode.PERMISSION_DENIED,
        codes.CONN_DOES_NOT_EXIST: ErrorCode.NOT_FOUND,
        codes.MODEL_DOES_NOT_EXIST: ErrorCode.NOT_FOUND,
        codes.RUNNER_DOES_NOT_EXIST: ErrorCode.NOT_FOUND,
        codes.DEPLOYMENT_DOES_NOT_EXIST: ErrorCode.NOT_FOUND,
        codes.NODEPOOL_DOES_NOT_EXIST: ErrorCode.NOT_FOUND,
        codes.MODEL_INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
        codes.MODEL_INVALID_REQUEST: ErrorCode.INVALID_ARGUMENT,
        codes.RUNNER_INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
        codes.RUNNER_INVALID_REQUEST: ErrorCode.INVALID_ARGUMENT,
        codes.CONN_BAD_REQUEST_FORMAT: ErrorCode.INVALID_ARGUMENT,
        codes.CONN_INVALID_REQUEST: ErrorCode.FAILED_PRECONDITION,
        codes.CONN_METHOD_NOT_ALLOWED: ErrorCode.METHOD_NOT_ALLOWED,
        codes.CONN_INVALID_RANGE: ErrorCode.GONE,
        codes.RPC_MAX_MESSAGE_SIZE_EXCEEDED: ErrorCode.TOO_LARGE,
        codes.RPC_REQUEST_TIMEOUT: ErrorCode.DEADLINE_EXCEEDED,
        codes.RUNNER_ITEM_CANCELLED: ErrorCode.CANCELLED,
        codes.RPC_CANCELED: ErrorCode.CANCELLED,
        codes.REQUEST_CANCELED_BY_USER: ErrorCode.CANCELLED,
        codes.NOT_IMPLEMENTED: ErrorCode.NOT_IMPLEMENTED,
        codes.RPC_UNKNOWN_METHOD: ErrorCode.NOT_IMPLEMENTED,
        codes.EXTERNAL_CONNECTION_ERROR: ErrorCode.UPSTREAM_FAILED,
        codes.INTERNAL_UNCATEGORIZED: ErrorCode.INTERNAL,
    }
)

_FINE = frozenset((codes.SUCCESS, codes.MIXED_STATUS))


def success(req_id: str = "") -> status_pb2.Status:
    """Return the status of what went well."""
    return status_pb2.Status(code=codes.SUCCESS, description="Success", req_id=req_id)


class StatusError(CallError):
    """An error that has a status of its own.

    Args:
        status: Its code.
    """

    def __init__(self, message: str, code: ErrorCode, status: int) -> None:
        super().__init__(message, code)
        self.status = status


def status_of(error: CallError, req_id: str = "") -> status_pb2.Status:
    """Return what an error is told as; its text is in ``details``.

    The SDK asks again, for up to ten minutes, where the code is MODEL_BUSY_PLEASE_RETRY.
    """
    if isinstance(error, StatusError):
        code, description = error.status, name_of(error.status).replace("_", " ").capitalize()
    else:
        code, description = _TOLD[error.code]
    return status_pb2.Status(
        code=code,
        description=description,
        details=error.message[:MAX_SAID],
        req_id=req_id,
        http_status_code=error.http_status,
    )


def lost(error: CallError, req_id: str = "") -> status_pb2.Status:
    """Return what the loss of a runner is told as, that had a call: nobody asks again by itself, as nobody
    knows how far the call came."""
    return status_of(StatusError(error.message, error.code, codes.RUNNER_PROCESSING_FAILED), req_id)


def error_of(status: status_pb2.Status) -> CallError | None:
    """Return what a status reports; None where all went well, or some of a batch did."""
    if status.code in _FINE:
        return None
    code = _HEARD.get(status.code, ErrorCode.COMMAND_FAILED)
    text = status.details or status.description or f"it failed with {name_of(status.code)}"
    return CallError(text[:MAX_SAID], code)


def name_of(code: int) -> str:
    """Return the name of a status code, or its number where it has none here."""
    known = codes.StatusCode.DESCRIPTOR.values_by_number.get(code)
    return str(code) if known is None else str(known.name)
