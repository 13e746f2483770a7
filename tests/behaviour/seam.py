"""Dispatchers of the tests' own: one that remembers what was opened through it, and one to switch over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.errors import CallError, ErrorCode
from penstock.gateway.door import RunnerDoor
from penstock.gateway.hub import Hub
from penstock.protocol.dispatch import (
    Caller,
    CancelOutcome,
    Description,
    Health,
    LiveCall,
    TaskRecord,
)
from penstock.protocol.messages import CancelReason, Start
from penstock.server.door import Guest
from penstock.server.exchange import Receive, Send
from penstock.server.host import Hosted

MAX_MESSAGE = 16 * 1024 * 1024  # as the server has it


class Watched:
    """A dispatcher that tells which call a request became, by the correlation id that came with it.

    A caller that gets no frame until the end (HTTP JSON) has no other way to know that it was accepted.
    """

    def __init__(self, inner: Hosted) -> None:
        self.inner = inner
        self.calls: list[LiveCall] = []
        self._awaited: dict[str, asyncio.Future[LiveCall]] = {}

    def expect(self, correlation_id: str) -> asyncio.Future[LiveCall]:
        """Return what will hold the call that a request with this id opens."""
        return self._awaited.setdefault(correlation_id, asyncio.get_running_loop().create_future())

    async def open(self, start: Start, caller: Caller) -> LiveCall:
        live = await self.inner.open(start, caller)
        self.calls.append(live)
        awaited = self._awaited.pop(caller.correlation_id, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(live)
        return live

    async def cancel(self, call_id: str, reason: CancelReason, caller: Caller) -> CancelOutcome:
        return await self.inner.cancel(call_id, reason, caller)

    def find(self, call_id: str, caller: Caller) -> LiveCall:
        return self.inner.find(call_id, caller)

    def tasks(self, caller: Caller) -> Sequence[TaskRecord]:
        return self.inner.tasks(caller)

    async def describe(self) -> Description:
        return await self.inner.describe()

    async def health(self) -> Health:
        return await self.inner.health()

    async def start(self) -> None:
        await self.inner.start()

    async def drain(self) -> None:
        await self.inner.drain()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Switch:
    """Stands behind a server that outlives many tests, each with an app of its own."""

    def __init__(self) -> None:
        self.inner: Hosted | None = None
        self.hub: Hub | None = None  # that runners dial

    async def visit(self, receive: Receive, send: Send, guest: Guest) -> None:
        """Take a runner's connection."""
        assert self.hub is not None, "no test has a gateway"
        await RunnerDoor(self.hub, MAX_MESSAGE)(receive, send, guest)

    def _now(self) -> Hosted:
        if self.inner is None:
            raise CallError("no test runs", ErrorCode.UNAVAILABLE)
        return self.inner

    async def open(self, start: Start, caller: Caller) -> LiveCall:
        return await self._now().open(start, caller)

    async def cancel(self, call_id: str, reason: CancelReason, caller: Caller) -> CancelOutcome:
        return await self._now().cancel(call_id, reason, caller)

    def find(self, call_id: str, caller: Caller) -> LiveCall:
        return self._now().find(call_id, caller)

    def tasks(self, caller: Caller) -> Sequence[TaskRecord]:
        return self._now().tasks(caller)

    async def describe(self) -> Description:
        return await self._now().describe()

    async def health(self) -> Health:
        return await self._now().health()

    # Its apps are started and closed by the tests that made them.
    async def start(self) -> None: ...
    async def drain(self) -> None: ...
    async def aclose(self) -> None: ...
