"""Calls that run elsewhere, in a child process or on a runner.

The executor, log, cancel and permits stay as they are: only the function of a call is replaced, by one that
forwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgspec

from penstock.calls.live import Live
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import End, Open, Progress, read_object
from penstock.protocol.values import Json
from penstock.runtime.command import BoundCommand, Kind
from penstock.runtime.manifest_parts import NO_SETTINGS
from penstock.runtime.remote import Ready

OWN_CUT_S = 1.0  # a deadline passes on both sides, and here at the latest so much after there


class Forwarded(Protocol):
    """A call that runs elsewhere; see ``penstock.runtime.remote.RemoteCall``."""

    @property
    def end(self) -> End | None: ...
    async def take(self) -> list[Ready]: ...
    def result(self) -> End: ...
    async def stop(self, reason: CancelReason, grace_s: float) -> None: ...


Destination: TypeAlias = Callable[[Live, Callable[[], Open]], Awaitable[Forwarded]]
"""Opens a call where it is to run, once it can; only then asks what to open, as the call's time goes on
meanwhile.  It raises ``CallError`` where there is no such place in time."""


class Forwarding:
    """Forwards calls.

    Args:
        window: Bytes of items that may be on their way, for each call.
        grace_s: How long a cancelled call may take to stop, in seconds.
    """

    def __init__(self, window: int, grace_s: float) -> None:
        self._window = window
        self._grace_s = grace_s
        self._forwarded: set[str] = set()

    def __len__(self) -> int:
        """Calls that are under way elsewhere."""
        return len(self._forwarded)

    def has(self, request_id: str) -> bool:
        """Whether a call has been handed on; abort callbacks serve it where it runs."""
        return request_id in self._forwarded

    def bind(self, bound: BoundCommand, live: Live, text: bytes, destination: Destination) -> BoundCommand:
        """Return what runs a call elsewhere, in the place of ``bound``.

        Args:
            text: The input, JSON.
            destination: Where.
        """
        forward, kind = (
            (self._stream, Kind.BATCHES) if bound.command.streaming else (self._answer, Kind.AWAITABLE)
        )
        function = partial(forward, destination, live, text)
        command = replace(bound.command, function=function, kind=kind, isolation="inline")
        return replace(bound, command=command, settings=NO_SETTINGS)  # what it is to obey was read before

    def opening(self, live: Live, text: bytes) -> Open:
        """Return what opens a call elsewhere.

        Args:
            text: The input, JSON.
        """
        start, caller = live.start, live.caller
        return Open(
            request_id=live.request_id,
            task_id=live.task_id,
            command=start.command,
            input=text,
            output_config=msgspec.json.encode(start.output_config),
            notes=start.notes,
            window=self._window,
            remaining_s=live.remaining(),
            correlation_id=caller.correlation_id,
            trace_parent=live.trace_parent,
            more_input=live.inputs is not None,
            counts_input=live.inputs is not None,
        )

    # -- calls ---------------------------------------------------------------------------------------

    def _stream(self, destination: Destination, live: Live, text: bytes, /, **_: Any) -> ForwardedItems:
        return ForwardedItems(self, destination, live, text)

    async def _answer(self, destination: Destination, live: Live, text: bytes, /, **_: Any) -> Json:
        call = await self.open(destination, live, text)
        try:
            while ready := await call.take():
                for entry in ready:
                    if not isinstance(entry, bytes):
                        live.note("progress", read_object(entry.about))
            end = await _conclude(live, call)
            return Json(end.answer or b"null")
        finally:
            await self.leave(live, call)

    async def open(self, destination: Destination, live: Live, text: bytes) -> Forwarded:
        """Open a call where it is to run."""
        call = await destination(live, partial(self._opening_in_time, live, text))
        self._forwarded.add(live.request_id)
        return call

    async def leave(self, live: Live, call: Forwarded) -> None:
        """Return once a call has stopped there; it is cancelled unless it has ended."""
        try:
            await call.stop(live.cancel_reason or CancelReason.CALLER, self._grace_s)
        finally:
            self._forwarded.discard(live.request_id)
            if call.end is not None:
                _learn(live, call.end)

    def _opening_in_time(self, live: Live, text: bytes) -> Open:
        """Return what opens the call, unless its time has passed while it waited for its place."""
        live.expire()
        if live.cancel_reason is not None:
            raise asyncio.CancelledError
        return self.opening(live, text)


class ForwardedItems:
    """The items of a call that runs elsewhere; ``penstock.runtime.executor.Batches``.

    Args:
        forwarding: Opens it, with the first batch.
        destination: Where.
        text: The input, JSON.
    """

    def __init__(self, forwarding: Forwarding, destination: Destination, live: Live, text: bytes) -> None:
        self._forwarding = forwarding
        self._destination = destination
        self._live = live
        self._text = text
        self._call: Forwarded | None = None
        self._ready: list[Ready] = []

    async def take(self) -> list[Json]:
        """Return the items that are there, once there are some; an empty list at the end.

        Raises:
            CallError: It failed there.
            asyncio.CancelledError: It was cut there, or here.
        """
        if self._call is None:
            self._call = await self._forwarding.open(self._destination, self._live, self._text)
        while True:
            self._ready = self._ready or await self._call.take()
            if not self._ready:
                await _conclude(self._live, self._call)
                return []
            if items := self._next_items():
                return items

    async def aclose(self) -> None:
        """Return once the call has stopped."""
        if self._call is not None:
            await self._forwarding.leave(self._live, self._call)

    def stack(self) -> str:
        """Where it is."""
        return "elsewhere: in another process, or on a runner"

    def _next_items(self) -> list[Json]:
        """Return the items up to the next note; a note that comes first is written down."""
        ready = self._ready
        if Progress not in map(type, ready):
            self._ready = []
            return list(map(Json, ready))  # type: ignore[arg-type]
        items: list[Json] = []
        for number, entry in enumerate(ready):
            if not isinstance(entry, bytes):
                if not items:
                    self._live.note("progress", read_object(entry.about))
                    number += 1
                self._ready = ready[number:]
                break
            items.append(Json(entry))
        return items


def _learn(live: Live, end: End) -> None:
    """Take over what an engine said there."""
    if end.report is not None:
        live.report(end.report)
    if end.confirmed:
        live.mark_confirmed()


async def _conclude(live: Live, call: Forwarded) -> End:
    """Return how a call ended well.

    Raises:
        CallError: It failed there.
        asyncio.CancelledError: It was cut there.
    """
    end = call.result()
    if end.reason is not None:
        await asyncio.sleep(OWN_CUT_S)
        live.cancel(end.reason)
        raise asyncio.CancelledError
    return end
