"""What goes wrong between us and a server, as the one table of ``penstock.errors`` has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import msgspec

from penstock.engines.upstream.cleaning import cleaned
from penstock.errors import CallError, ErrorCode

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON raises: no JSON, no UTF-8, too many brackets."""

AGAIN: Final = frozenset((429, 502, 503, 529))
"""Statuses after which the same request may be sent again: nothing was computed for it."""


class Told(NamedTuple):
    """An error object as a server sent it, whatever its shape."""

    message: str = ""
    kind: str = ""
    status: int | None = None


class _Row(NamedTuple):
    code: ErrorCode
    said: str
    retryable: bool | None = None
    shown: bool = False
    """Whether the server's own words help the caller."""


_ROWS: Mapping[int, _Row] = {
    400: _Row(ErrorCode.INVALID_ARGUMENT, "refused the request", shown=True),
    401: _Row(ErrorCode.UPSTREAM_FAILED, "does not accept this server's key", retryable=False),
    403: _Row(ErrorCode.UPSTREAM_FAILED, "does not permit this server to do that", retryable=False),
    404: _Row(ErrorCode.UPSTREAM_FAILED, "has no such model or route", retryable=False),
    408: _Row(ErrorCode.DEADLINE_EXCEEDED, "ran into a time limit of its own"),
    413: _Row(ErrorCode.TOO_LARGE, "says that the request is too large", shown=True),
    422: _Row(ErrorCode.INVALID_ARGUMENT, "refused the request", shown=True),
    429: _Row(ErrorCode.RESOURCE_EXHAUSTED, "takes no more requests for now"),
    501: _Row(ErrorCode.NOT_IMPLEMENTED, "cannot do what was asked", shown=True),
    503: _Row(ErrorCode.UNAVAILABLE, "is not ready or overloaded"),
    504: _Row(ErrorCode.DEADLINE_EXCEEDED, "ran into a time limit of its own"),
    529: _Row(ErrorCode.UNAVAILABLE, "is overloaded"),
}
_REDIRECT = _Row(
    ErrorCode.UPSTREAM_FAILED, "redirects to another place, which is not followed", retryable=False
)
_ODD_REQUEST = _Row(ErrorCode.UPSTREAM_FAILED, "refused the request", retryable=False)
_ODD_SUCCESS = _Row(ErrorCode.UPSTREAM_FAILED, "answered with a status that is not one of a stream")
_FAILED = _Row(ErrorCode.UPSTREAM_FAILED, "failed")

# The names by which OpenAI, Anthropic, vLLM, SGLang and llama.cpp call their faults, without "_" and "error".
_STATUS_OF_KIND: Mapping[str, int] = {
    "invalidrequest": 400,
    "badrequest": 400,
    "exceedcontextsize": 400,
    "contextlengthexceeded": 400,
    "value": 400,
    "validation": 422,
    "unprocessableentity": 422,
    "authentication": 401,
    "billing": 403,
    "permission": 403,
    "permissiondenied": 403,
    "notfound": 404,
    "modelnotfound": 404,
    "requesttoolarge": 413,
    "ratelimit": 429,
    "ratelimitexceeded": 429,
    "insufficientquota": 429,
    "notsupported": 501,
    "notimplemented": 501,
    "unavailable": 503,
    "serviceunavailable": 503,
    "timeout": 504,
    "overloaded": 529,
}
_JOINTS = re.compile(r"[_\s-]")


def told_in(body: bytes) -> Told | None:
    """Find the error object in the JSON of an answer or event; None when there is none."""
    try:
        return told_by(msgspec.json.decode(body))
    except UNREADABLE:
        return None


def told_by(data: object) -> Told | None:
    """Find the error object in decoded JSON; None when there is none.

    Known shapes are ``{"error": {"message", "type", "code"}}``, ``{"error": "text"}``, and
    ``{"object": "error", "message", "type", "code"}``.
    """
    if not isinstance(data, dict):
        return None
    error = data.get("error")
    if error is None and "error" in (data.get("object"), data.get("type")):
        error = data
    if not error:
        return None
    if not isinstance(error, dict):
        return Told(str(error))
    return _read(error)


def of_status(
    engine: str,
    status: int,
    told: Told | None = None,
    *,
    retry_after_s: float | None = None,
    secrets: Iterable[str] = (),
) -> CallError:
    """The error of an answer that is no stream.

    Args:
        engine: Its name, for what a caller reads.
        status: The HTTP status.
        told: What the body said of it.
        retry_after_s: What its ``Retry-After`` asks for, in seconds.
        secrets: Never shown.
    """
    row = _row(status)
    message = f"{engine} {row.said}"
    if row.shown and told is not None and told.message:
        message += f": {cleaned(told.message, secrets)}"
    retryable = False if _out_of_quota(told) else row.retryable
    return CallError(message, row.code, retryable=retryable, retry_after_s=retry_after_s)


def of_told(engine: str, told: Told, secrets: Iterable[str] = ()) -> CallError:
    """The error of an error object inside a stream that began well."""
    return of_status(engine, status_of(told), told, secrets=secrets)


def status_of(told: Told) -> int:
    """The HTTP status an error object stands for; 500 when it does not say."""
    if told.status is not None:
        return told.status
    return _STATUS_OF_KIND.get(_plain(told.kind), 500)


def may_try_again(status: int, told: Told | None) -> bool:
    """Whether the same request may succeed in a moment."""
    return status in AGAIN and not _out_of_quota(told)


def retry_after(value: str | None, now: float) -> float | None:
    """Read a ``Retry-After`` (RFC 9110, 10.2.3): seconds, or a date; None when it is neither.

    Args:
        now: Unix seconds.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < 1e9 else None


def lost(engine: str, *, begun: bool) -> CallError:
    """The error of a connection that broke, before or in an answer."""
    if begun:
        return CallError(f"{engine} broke its answer off", ErrorCode.UPSTREAM_FAILED)
    return CallError(f"{engine} broke the connection before it answered", ErrorCode.UNAVAILABLE)


def unreachable(engine: str) -> CallError:
    """The error of a server that takes no connection."""
    return CallError(f"{engine} cannot be reached", ErrorCode.UNAVAILABLE)


def garbled(engine: str, what: str) -> CallError:
    """The error of an answer that is not what the protocol says."""
    return CallError(f"{engine} {what}", ErrorCode.UPSTREAM_FAILED)


def _row(status: int) -> _Row:
    found = _ROWS.get(status)
    if found is not None:
        return found
    if 300 <= status < 400:
        return _REDIRECT
    if 400 <= status < 500:
        return _ODD_REQUEST
    return _ODD_SUCCESS if status < 300 else _FAILED


def _read(error: Mapping[str, Any]) -> Told:
    code, kind = error.get("code"), error.get("type")
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        status, code = int(code), None
    named = [name for name in (code, kind) if isinstance(name, str) and name]
    known = [name for name in named if _plain(name) in _STATUS_OF_KIND]
    message = error.get("message")
    return Told(message if isinstance(message, str) else "", (known or named or [""])[0], status)


def _plain(kind: str) -> str:
    return _JOINTS.sub("", kind.lower()).removesuffix("error")


def _out_of_quota(told: Told | None) -> bool:
    return told is not None and _plain(told.kind) == "insufficientquota"
