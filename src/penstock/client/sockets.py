"""Sockets with calls on them: one that many calls share, and one that a call has for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, cast

import anyio

from penstock.client.inbox import Inbox, ends_call
from penstock.client.wire import Hangup, Wire
from penstock.errors import CallError, ConnectionFailed, ErrorCode
from penstock.protocol.dispatch import CancelOutcome
from penstock.protocol.messages import Frame

MAX_CALLS = 256  # that a server takes on one socket
ANSWER_S = 30.0  # how long a server may take to answer what no model has to


class Source(Protocol):
    """What a call's frames come from."""

    async def send(self, fields: Mapping[str, Any]) -> None:
        """Send a message.

        Raises:
            ConnectionFailed: Nobody is there any more.
        """
        ...

    async def leave(self, inbox: Inbox) -> None:
        """Read a call no longer."""
        ...


class SharedSocket:
    """Many calls, told apart by their names.  It is always read, so no call ever holds up another: the frames
    of one whose reader is too far behind are passed over from there on.

    Args:
        wire: The connection; it becomes this object's to close.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._calls: dict[str, Inbox] = {}
        self._passed_over: set[str] = set()  # those of them that are, until the server has let go of them
        self._cancels: dict[str, list[asyncio.Future[str]]] = {}
        self._gone: str | None = None

    @property
    def open(self) -> bool:
        """Whether the connection stands."""
        return self._gone is None

    def takes(self, name: str) -> bool:
        """Whether a call of this name can be opened here."""
        return self.open and name not in self._calls and len(self._calls) < MAX_CALLS

    def has(self, call_id: str) -> str | None:
        """Return the name of a call that is read here, by that name or its request id."""
        if call_id in self._calls:
            return call_id
        return next((inbox.name for inbox in self._calls.values() if inbox.request_id == call_id), None)

    def attach(self, inbox: Inbox) -> None:
        """Route what comes for this call."""
        self._calls[inbox.name] = inbox

    async def send(self, fields: Mapping[str, Any]) -> None:
        """See ``Source.send``."""
        await _send(self._wire, fields)

    async def leave(self, inbox: Inbox) -> None:
        """See ``Source.leave``."""
        if self._calls.get(inbox.name) is inbox and not inbox.left:
            inbox.left = True
            self._passed_over.add(inbox.name)
            await self.send({"type": "detach", "task_id": inbox.name})

    async def cancel(self, name: str) -> CancelOutcome:
        """Cancel a call.

        Raises:
            CallError: ``not_found``.
            ConnectionFailed: The connection broke, or the server does not answer.
        """
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._cancels.setdefault(name, []).append(answer)
        await self.send({"type": "cancel", "task_id": name})
        with anyio.move_on_after(ANSWER_S):
            await asyncio.wait((answer,))
        if not answer.done():
            raise ConnectionFailed(f"the server did not answer the cancel of {name} within {ANSWER_S:g} s")
        outcome = answer.result()
        if outcome == "not_found":
            raise CallError(f"no task {name!r} is known there", ErrorCode.NOT_FOUND)
        return cast("CancelOutcome", outcome)

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            while True:
                self._route(*await self._wire.receive())
        except Hangup as error:
            self._hang_up(str(error))
        finally:
            self._hang_up("the client was closed")
            await self._wire.aclose()

    def _route(self, frame: Frame, size: int) -> None:
        name = frame.task_id or ""
        if frame.type == "task":
            if frame.status == "streaming" and name not in self._passed_over and name in self._calls:
                inbox = self._calls[name]  # what nearly every message is
                if inbox.put_item(frame, size):
                    self._pass_over(inbox)
            else:
                self._deliver(name, frame, size)
        elif frame.type == "cancel":
            self._answer_cancels(name, frame.status)
        elif frame.type == "detach":
            self._forget(name)

    def _deliver(self, name: str, frame: Frame, size: int) -> None:
        if ends_call(frame):
            # A call that is read here answers its cancel by its end; what ended it otherwise was faster.
            self._answer_cancels(name, "cancelled" if frame.status == "cancelled" else "already_finished")
        inbox = self._calls.get(name)
        if inbox is None or name in self._passed_over:
            return
        inbox.put(frame, size)
        if inbox.ended:
            self._forget(name)
        elif inbox.full:
            self._pass_over(inbox)

    def _pass_over(self, inbox: Inbox) -> None:
        self._passed_over.add(inbox.name)
        inbox.on_full()

    def _forget(self, name: str) -> None:
        self._calls.pop(name, None)
        self._passed_over.discard(name)

    def _answer_cancels(self, name: str, outcome: str) -> None:
        for answer in self._cancels.pop(name, ()):
            if not answer.done():
                answer.set_result(outcome)

    def _hang_up(self, reason: str) -> None:
        if self._gone is not None:
            return
        self._gone = reason
        for name, inbox in self._calls.items():
            if name not in self._passed_over:
                inbox.fail(reason)
        for answer in (answer for answers in self._cancels.values() for answer in answers):
            if not answer.done():
                answer.set_exception(_broken(reason))
        self._calls.clear()
        self._cancels.clear()


class OwnSocket:
    """One call that has a socket for itself, and may hold it up.

    Args:
        wire: The connection; it becomes this object's to close.
        inbox: Where the frames go.
    """

    def __init__(self, wire: Wire, inbox: Inbox) -> None:
        self._wire = wire
        self._inbox = inbox
        self.begun = asyncio.Event()  # the call is read, or never will be

    async def resume(self, call_id: str, after: int) -> None:
        """Ask for the frames behind number ``after``; the pong that follows says that no refusal came."""
        await self.send({"type": "resume", "task_id": call_id, "after": after})
        await self.send({"type": "ping"})

    async def send(self, fields: Mapping[str, Any]) -> None:
        """See ``Source.send``."""
        await _send(self._wire, fields)

    async def leave(self, inbox: Inbox) -> None:
        """See ``Source.leave``."""
        inbox.end()
        await self._wire.drop()

    async def run(self) -> None:
        """Read until the call or the connection ends."""
        inbox = self._inbox
        try:
            while not inbox.ended:
                self._route(*await self._wire.receive())
                await inbox.room()
        except Hangup as error:
            inbox.fail(str(error))
        finally:
            inbox.fail("the client was closed")
            self.begun.set()
            await self._wire.drop()

    def _route(self, frame: Frame, size: int) -> None:
        if frame.type == "pong":
            self._inbox.confirm()
        elif frame.type == "resume":  # it has ended, and nothing follows
            self._inbox.end()
        elif frame.type == "task":
            self._inbox.put(frame, size)
            if frame.seq is None and not self.begun.is_set():  # a refusal
                self._inbox.end()
        else:
            return
        self.begun.set()


async def _send(wire: Wire, fields: Mapping[str, Any]) -> None:
    try:
        await wire.send(fields)
    except Hangup as error:
        raise _broken(str(error)) from error


def _broken(reason: str) -> ConnectionFailed:
    return ConnectionFailed(f"the connection broke before there was an answer ({reason}); try again")
