"""How a client reaches what runs its calls: one small interface, in process, over HTTP and WebSocket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import (
    CancelOutcome,
    CommandDescription,
    Phase,
    TaskRecord,
    WorkflowDescription,
)
from penstock.protocol.messages import Frame, Start

MARGIN_S = 10.0  # beyond a call's own budget, in which the server tells that it was used up


class Asked(NamedTuple):
    """A request to run something, and what goes with it.

    Attributes:
        correlation_id: `X-Request-Id`.
        idempotency_key: The same request under it runs once, however often it is sent.
    """

    start: Start
    correlation_id: str
    idempotency_key: str | None = None

    @property
    def patience_s(self) -> float | None:
        """How long its answer may take, in seconds; None: for ever."""
        return None if self.start.timeout_s is None else self.start.timeout_s + MARGIN_S


class Task(TaskRecord, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a call, as ``GET /tasks/{id}`` shows it, with its ``result`` as plain data."""

    result: Any = None


class Offer(msgspec.Struct, frozen=True):
    """What can be called, as ``GET /v2/commands`` shows it."""

    commands: Mapping[str, CommandDescription]
    workflows: Mapping[str, WorkflowDescription] = {}


class ServerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is, as ``GET /health`` shows it."""

    status: Phase
    name: str
    version: str
    uptime_s: float
    in_flight: int


def closed() -> CallError:
    """Return what a client says that was closed."""
    return CallError("the client was closed", ErrorCode.FAILED_PRECONDITION)


class Reply(Protocol):
    """The frames of one call as they come, in batches; not checked against the rules of a call's life."""

    async def __anext__(self) -> list[Frame]:
        """Return the next frames.

        Raises:
            StopAsyncIteration: The stream has ended.
            StreamTruncated: It broke off.
            RemoteProtocolError: The peer sent what is no frame.
            CallError: ``too_large``; or ``gone``: the log was trimmed past this reader.
        """
        ...

    async def send(self, item: bytes) -> None:
        """Send one item, as JSON, to a command that takes a stream.

        Raises:
            CallError: It is refused, or cannot be sent.  What a server refuses later is raised on reading.
        """
        ...

    async def end_input(self) -> None:
        """Say that no more items come.

        Raises:
            CallError: It is refused, or cannot be sent.
        """
        ...

    async def aclose(self) -> None:
        """Leave; a connection with a reply half read is closed, never used again."""
        ...


class Transport(Protocol):
    """A way to what runs calls; it brings no behaviour of its own.

    Every method raises ``CallError`` for what is refused, ``ConnectionFailed`` when nobody answers, and
    ``RemoteProtocolError`` for an answer that is not penstock's.
    """

    async def run(self, asked: Asked) -> Frame:
        """Run a call that does not stream; return its terminal frame, also of a call that failed."""
        ...

    async def open(self, asked: Asked) -> Reply:
        """Open a call that streams."""
        ...

    async def resume(self, call_id: str, after: int, correlation_id: str) -> Reply:
        """Read the frames of a call behind number ``after``, by its task id or request id."""
        ...

    async def cancel(self, task_id: str) -> CancelOutcome: ...
    async def task(self, task_id: str) -> Task: ...
    async def tasks(self) -> list[Task]: ...
    async def offer(self) -> Offer: ...
    async def health(self) -> ServerHealth: ...
    async def aclose(self) -> None: ...
