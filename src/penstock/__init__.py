"""penstock serves a model as a stream.

Names are loaded when first used: importing the package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock import engines, protocol, testing
    from penstock.client import AsyncClient, AsyncStream, Client, Stream
    from penstock.errors import (
        AuthoringError,
        CallCancelled,
        CallError,
        CommandError,
        ConnectionFailed,
        ErrorCode,
        ManifestError,
        PenstockError,
        ProtocolError,
        ReplayTruncated,
        StreamTruncated,
    )
    from penstock.runtime.abort import register_abort_callback
    from penstock.runtime.app import App
    from penstock.runtime.context import CallContext, current_call, get_request_id
    from penstock.runtime.interrupt import CallInterrupted
    from penstock.runtime.parameters import State
    from penstock.runtime.runtime import Runtime

__version__ = "0.1.0"

_HOMES = {
    "App": "runtime.app",
    "AsyncClient": "client",
    "AsyncStream": "client",
    "AuthoringError": "errors",
    "CallCancelled": "errors",
    "CallContext": "runtime.context",
    "CallError": "errors",
    "CallInterrupted": "runtime.interrupt",
    "Client": "client",
    "CommandError": "errors",
    "ConnectionFailed": "errors",
    "ErrorCode": "errors",
    "ManifestError": "errors",
    "PenstockError": "errors",
    "ProtocolError": "errors",
    "ReplayTruncated": "errors",
    "Runtime": "runtime.runtime",
    "State": "runtime.parameters",
    "Stream": "client",
    "StreamTruncated": "errors",
    "current_call": "runtime.context",
    "get_request_id": "runtime.context",
    "register_abort_callback": "runtime.abort",
}
_ROOMS = ("engines", "protocol", "testing")

__all__ = [
    "App",
    "AsyncClient",
    "AsyncStream",
    "AuthoringError",
    "CallCancelled",
    "CallContext",
    "CallError",
    "CallInterrupted",
    "Client",
    "CommandError",
    "ConnectionFailed",
    "ErrorCode",
    "ManifestError",
    "PenstockError",
    "ProtocolError",
    "ReplayTruncated",
    "Runtime",
    "State",
    "Stream",
    "StreamTruncated",
    "current_call",
    "engines",
    "get_request_id",
    "protocol",
    "register_abort_callback",
    "testing",
]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
