"""The seam.  Whatever can run a call implements ``Dispatcher``; every transport, client and test speaks
only to it.  A new transport is a new pump, a new place to run is a new dispatcher; neither brings
behaviour."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from penstock.protocol.call import Ending, State
from penstock.protocol.messages import CancelReason, Start

CancelOutcome = Literal["cancelled", "already_finished"]
Phase = Literal["starting", "healthy", "draining", "unhealthy"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks.  Calls are seen and cancelled only by the key that opened them, and by admins.

    Attributes:
        key: The id of the caller's key; empty in process, and where there are no keys.
        admin: Whether it may see and cancel everybody's calls, and run `initialize` and `cleanup`.
    """

    key: str = ""
    admin: bool = False
    correlation_id: str = ""
    trace_parent: str | None = None

    @property
    def anonymous(self) -> bool:
        """Whether it has shown no key where one is needed."""
        return not (self.key or self.admin)


LOCAL = Caller(admin=True)


class Batch(NamedTuple):
    """The frames that were there when a reader looked, in wire form without line ends; none after a nudge."""

    first_seq: int
    lines: list[bytes]
    ending: Ending | None  # set when the last of them is the terminal frame


class FrameReader(Protocol):
    """A cursor over a call's log.  Iterating gives batches until the terminal frame; leaving the context
    detaches, and the call's ``on_disconnect`` policy decides what that means."""

    def __aiter__(self) -> AsyncIterator[Batch]: ...
    async def __anext__(self) -> Batch: ...
    def close(self) -> None:
        """Detach now; a pending ``__anext__`` ends the iteration."""
        ...

    def nudge(self) -> None:
        """Have a pending ``__anext__`` return an empty batch: its transport can then show a sign of life."""
        ...


class LiveCall(Protocol):
    """One call, wherever it runs."""

    @property
    def request_id(self) -> str: ...
    @property
    def task_id(self) -> str: ...
    @property
    def state(self) -> State: ...
    def reader(self, after: int = -1) -> AbstractAsyncContextManager[FrameReader]:
        """Attach a reader behind frame number ``after``.

        Raises:
            ReplayTruncated: Frames after it are no longer kept.
        """
        ...

    def send(self, item: bytes) -> None:
        """Hand one item, as JSON, to a command that takes a stream.

        Raises:
            CallError: It is refused; the call goes on.
        """
        ...

    def end_input(self) -> None:
        """Say that no more items come.

        Raises:
            CallError: The command takes no stream.
        """
        ...

    def cancel(self, reason: CancelReason) -> CancelOutcome: ...
    def record(self) -> TaskRecord: ...


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a call, as ``GET /tasks/{id}`` shows it; times are Unix seconds."""

    task_id: str
    request_id: str
    command: str = ""  # one of these two
    workflow_id: str | None = None
    status: str
    accepted_at: float
    next_seq: int
    first_seq: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    result: msgspec.Raw | None = None
    error: str | None = None
    code: str | None = None
    reason: str | None = None
    cancel: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None


OpenAIKind = Literal["chat", "completion", "embeddings", "transport"]
"""Which OpenAI-compatible route a command serves; ``transport`` takes any request as the text ``msg``, and
gives what is to be answered, as Clarifai's models do."""


class CommandDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command as ``GET /v2/commands`` shows it.

    Attributes:
        openai: Which OpenAI-compatible route it serves.
        model: What it is called there, if not by its own name.
    """

    description: str
    streaming: bool
    input_schema: Mapping[str, Any]
    item_schema: Mapping[str, Any]
    openai: OpenAIKind | None = None
    model: str | None = None


class WorkflowDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A workflow as ``GET /v2/commands`` shows it; a step is its id and command, a group of steps that run
    at the same time ``{"parallel": [...]}``."""

    description: str | None = None
    input_schema: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a dispatcher serves."""

    name: str
    version: str
    default_command: str
    commands: Mapping[str, CommandDescription]
    workflows: Mapping[str, WorkflowDescription] = {}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a dispatcher is; ``phase`` names what it is doing while it starts."""

    status: Phase
    name: str
    version: str
    uptime_s: float
    in_flight: int
    phase: str
    elapsed_s: float
    checks: Mapping[str, str] = {}


class Dispatcher(Protocol):
    """Runs calls."""

    async def open(self, start: Start, caller: Caller) -> LiveCall:
        """Accept a call, or refuse it.

        Raises:
            CallError: Refused at admission: nothing ran, nothing was logged.
        """
        ...

    async def cancel(self, call_id: str, reason: CancelReason, caller: Caller) -> CancelOutcome:
        """Cancel a call by its task id or request id; idempotent.

        Raises:
            CallError: ``not_found``.
        """
        ...

    def find(self, call_id: str, caller: Caller) -> LiveCall:
        """Return a call by its task id or request id.

        Raises:
            CallError: ``not_found``: unknown, forgotten, or another key's.
        """
        ...

    def tasks(self, caller: Caller) -> Sequence[TaskRecord]:
        """Return the calls of this caller that are still known, oldest first."""
        ...

    async def describe(self) -> Description: ...
    async def health(self) -> Health: ...
