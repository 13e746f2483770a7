"""The call this code runs in, for code below the author: engines, callbacks, log records.

The executor sets it around an author's function; threads and executors started in there carry it along
(``runtime/threads.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from penstock.kv.held import AskedPrefix
    from penstock.protocol.events import EngineReport


class AmbientCall(Protocol):
    """What code below the author may know of its call."""

    @property
    def request_id(self) -> str:
        """32 hex digits, never reused."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What is to be told to servers that work for this call: ``x_request_id`` and ``traceparent``, where
        known."""
        ...

    def remaining(self) -> float | None:
        """Seconds left to the call's deadline; ``None`` without one."""
        ...

    def report(self, report: EngineReport) -> None:
        """Put what an engine tells of its generation into the call's terminal frame."""
        ...

    def upstream_confirmed(self) -> None:
        """Say that the engine has confirmed the end of cancelled work."""
        ...


current: ContextVar[AmbientCall | None] = ContextVar("penstock_call", default=None)

asked_prefix: ContextVar[AskedPrefix | None] = ContextVar("penstock_asked_prefix", default=None)
"""The prompt of a call that came to a runner, for the engine that answers it; set around the call's start."""
