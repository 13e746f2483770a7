"""Calls that run elsewhere, in a child process or on a runner.

The executor, log, cancel and permits stay as they are: only the function of a call is replaced, by one that
forwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgspec

from penstock.calls.live import Live
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import End, Open, read_object
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
            (self._stream, Kind.ASYNC_GENERATOR)
            if bound.command.streaming
            else (self._answer, Kind.AWAITABLE)
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
            trace_parent=caller.trace_parent,
            more_input=live.inputs is not None,
        )

    # -- calls ---------------------------------------------------------------------------------------

    async def _stream(
        self, destination: Destination, live: Live, text: bytes, /, **_: Any
    ) -> AsyncGenerator[Json, None]:
        async with self._remote(destination, live, text) as call:
            while ready := await call.take():
                for entry in ready:
                    if isinstance(entry, bytes):
                        yield Json(entry)
                    else:
                        live.note("progress", read_object(entry.about))
            await _conclude(live, call)

    async def _answer(self, destination: Destination, live: Live, text: bytes, /, **_: Any) -> Json:
        async with self._remote(destination, live, text) as call:
            while ready := await call.take():
                for entry in ready:
                    if not isinstance(entry, bytes):
                        live.note("progress", read_object(entry.about))
            end = await _conclude(live, call)
            return Json(end.answer or b"null")

    @asynccontextmanager
    async def _remote(
        self, destination: Destination, live: Live, text: bytes
    ) -> AsyncGenerator[Forwarded, None]:
        call = await destination(live, partial(self._opening_in_time, live, text))
        self._forwarded.add(live.request_id)
        try:
            yield call
        finally:
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


def _learn(live: Live, end: End) -> None:
    """Take over what an engine said there."""
    if end.metrics is not None:
        live.report_metrics(end.metrics)
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
