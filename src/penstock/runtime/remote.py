"""One call that runs in another process, as the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeAlias

from penstock.errors import CallError, ErrorCode, LocalProtocolError
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Cancel, Credit, End, Items, Message, Open, Progress

Ready: TypeAlias = bytes | Progress
"""An item, as JSON, or a note."""


class Carrier(Protocol):
    """The process that runs the call."""

    def send(self, message: Message) -> None: ...
    def kill(self, why: str) -> None: ...


class RemoteCall:
    """A call under way; whoever takes its items holds its process back by at most a window.

    Args:
        carrier: Runs it.
        opening: What it is opened with.
    """

    def __init__(self, carrier: Carrier, opening: Open) -> None:
        self._carrier = carrier
        self._request_id = opening.request_id
        self.command = opening.command
        self._credit_at = (
            opening.window // 4
        )  # one credit a quarter of the window: few messages, and none too late
        self._owed = 0
        self._uncredited = 0  # bytes of items that have come and were not taken
        self._ready: list[Ready] = []
        self._waiter: asyncio.Future[None] | None = None
        self._over = asyncio.get_running_loop().create_future()
        self._lost: CallError | None = None
        self.end: End | None = None
        self.begun = False
        """Whether an item of it has come."""
        self.on_input_taken: Callable[[int], None] | None = None
        """Told how many items of its input stream its command has taken."""
        self.untaken = 0
        """Bytes that have come and were not taken yet."""
        try:
            carrier.send(opening)
        except LocalProtocolError as error:
            raise CallError(f"the input cannot be handed on: {error}", ErrorCode.TOO_LARGE) from error

    async def take(self) -> list[Ready]:
        """Return what is there, once there is something; an empty list at the end.

        Raises:
            CallError: The process was lost; ``unavailable``.
        """
        while not self._ready:
            if self._lost is not None:
                raise self._lost
            if self.end is not None:
                return []
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        ready, self._ready = self._ready, []
        self.untaken = 0
        self._settle()
        return ready

    def result(self) -> End:
        """Return how the call ended.

        Raises:
            CallError: It failed there.
        """
        assert self.end is not None
        if self.end.error is not None:
            raise self.end.error.error()
        return self.end

    async def stop(self, reason: CancelReason, grace_s: float) -> None:
        """Return once the call has stopped: cancelled unless it has ended, its process killed unless it stops
        within ``grace_s`` seconds.

        Raises:
            asyncio.CancelledError: This task was cancelled meanwhile; the call has stopped nevertheless.
        """
        if self._over.done():
            return
        self._carrier.send(Cancel(request_id=self._request_id, reason=reason))
        timer = asyncio.get_running_loop().call_later(grace_s, self._give_up, grace_s)
        interrupt: asyncio.CancelledError | None = None
        while not self._over.done():
            try:
                await asyncio.wait((self._over,))
            except asyncio.CancelledError as error:
                interrupt = error
        timer.cancel()
        if interrupt is not None:
            raise interrupt

    # -- for the carrier -----------------------------------------------------------------------------

    def heard(self, message: Items | Progress | End) -> None:
        """Take a message about this call."""
        if isinstance(message, Items):
            self.begun = True
            size = sum(map(len, message.items))
            self.untaken += size
            self._uncredited += size
            self._ready += message.items
        elif isinstance(message, Progress):
            self.untaken += len(message.about)
            self._ready.append(message)
        else:
            self.end = message
            self._finish()
        self._wake()

    def input_taken(self, count: int) -> None:
        """Hear that so many more items of its input stream were taken."""
        if self.on_input_taken is not None:
            self.on_input_taken(count)

    def lose(self, error: CallError) -> None:
        """End the call: its process is gone.  What had arrived is still taken first."""
        self._lost = error
        self._finish()
        self._wake()

    # -- inside --------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._owed += self._uncredited
        self._uncredited = 0
        if self._owed >= self._credit_at and not self._over.done():
            self._carrier.send(Credit(request_id=self._request_id, size=self._owed))
            self._owed = 0

    def _give_up(self, grace_s: float) -> None:
        self._carrier.kill(f"a call of it ran on {grace_s:g} s after its cancel")

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
