"""What a terminal frame, or a refusal, means to a caller: an answer or an exception."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.errors import (
    FAULTS,
    CallCancelled,
    CallError,
    ErrorCode,
    PenstockError,
    RemoteProtocolError,
    ReplayTruncated,
)
from penstock.protocol.call import Call
from penstock.protocol.messages import Frame


def answer_of(frame: Frame) -> Any:
    """Return the answer of a call that did not stream.

    Raises:
        CallError: It failed.
        CallCancelled: It was cancelled.
        RemoteProtocolError: The frame is not a call's end.
    """
    call = Call()
    call.observe(frame, answer=True)
    if not call.state.terminal:
        raise RemoteProtocolError(f"the answer is a {frame.status!r} frame, which ends no call")
    if (failure := failure_of(frame)) is not None:
        raise failure
    return None if frame.data is msgspec.UNSET else frame.data


def failure_of(frame: Frame) -> PenstockError | None:
    """Return the exception a terminal frame stands for; None for ``completed``."""
    if frame.status == "error":
        return error_of(frame)
    if frame.status == "cancelled":
        reason = frame.reason or "unknown"
        hint = "; with another on_disconnect it would have gone on" if reason == "disconnect" else ""
        return CallCancelled(f"{_subject(frame)} was cancelled (reason: {reason}){hint}", reason=reason)
    return None


def error_of(frame: Frame, http_status: int | None = None, retry_after_s: float | None = None) -> CallError:
    """Return the exception an ``error`` frame stands for.

    Args:
        frame: Of a call that failed, or of a refusal that belongs to no call.
        http_status: Of the response it came in; decides where the frame has no code we know.
        retry_after_s: Of that response, where the frame has none.
    """
    message = frame.error or f"{_subject(frame)} failed; the server gave no reason"
    if frame.code == ErrorCode.GONE.value and frame.first_seq is not None:
        return ReplayTruncated(message, first_seq=frame.first_seq)
    return CallError(
        message,
        _code(frame.code, http_status),
        retryable=frame.retryable,
        details=frame.details,
        retry_after_s=retry_after_s if frame.retry_after_s is None else frame.retry_after_s,
    )


def code_of_status(http_status: int) -> ErrorCode:
    """Return the code that an HTTP status speaks of by itself, as a proxy's does."""
    for code, fault in FAULTS.items():
        if fault.http == http_status:
            return code
    return ErrorCode.INVALID_ARGUMENT if http_status < 500 else ErrorCode.INTERNAL


def _code(name: str | None, http_status: int | None) -> ErrorCode:
    if name in _CODES:
        return ErrorCode(name)
    # Not sent by servers of other makes, or of a later version than ours.
    return ErrorCode.INTERNAL if http_status is None else code_of_status(http_status)


def _subject(frame: Frame) -> str:
    return f"call {frame.task_id}" if frame.task_id else "the call"


_CODES = frozenset(code.value for code in ErrorCode)
