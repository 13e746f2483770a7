"""One generation's request and its answer: opened, read event by event, and closed however it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import anyio

from penstock.calls import ambient
from penstock.engines.upstream import faults
from penstock.engines.upstream.patience import Deadlines
from penstock.engines.upstream.upstream import Send, Upstream
from penstock.engines.upstream.watch import Watch
from penstock.errors import CallError
from penstock.protocol.codec import SSE_TYPE, SseDecoder, SseEvent

if TYPE_CHECKING:
    import httpx

    from penstock.engines.upstream.clients import Lane

_log = logging.getLogger("penstock.engines")

T = TypeVar("T")
R = TypeVar("R")

MAX_EVENT = 8 * 1024 * 1024
"""Bytes one event may have; some servers repeat all of the answer in each."""
# After the last event only the end of the body is due; a server that sends more is not waited for.
_TAIL_S = 1.0
_TAIL_BYTES = 64 * 1024


class Exchange(Generic[T]):
    """One request to a server and its streamed answer.  Made where the generation starts, in its call.

    Args:
        upstream: The server.

    Raises:
        CallError: ``unavailable``: the engine is closed.
    """

    def __init__(self, upstream: Upstream[T]) -> None:
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(upstream.patience, upstream.name)
        self.over = True
        """Whether the server is known to have stopped: it was not asked, refused, or came to its end."""
        self._upstream = upstream
        self._call = ambient.current.get()
        self._watch = Watch(self.deadlines)
        self._lane: Lane[T] | None = None
        self._response: httpx.Response | None = None
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self._whole = False  # the body was read to its end: its connection is free for others
        self._decoder = SseDecoder(MAX_EVENT)
        self._closed = asyncio.Event()
        upstream.enter(self)

    async def within(self, work: Callable[[], Awaitable[R]]) -> R:
        """Do something else that belongs to the generation, no longer than the generation may take."""
        with self._watch:
            return await work()

    async def open(self, send: Send[T]) -> None:
        """Send the request, again where that is of use, until the stream of its answer begins.

        Raises:
            CallError: It was refused, could not be sent, or time ran out.
        """
        with self._watch:
            lane = await self._upstream.lane()
            # Whoever waits here is served as soon as somebody else is done; only the call's own time counts.
            await lane.room.acquire()
            self._lane = lane
        self.over = False
        self.deadlines.begin()
        try:
            with self._watch:
                self._response = await self._upstream.respond(lane, send, self.deadlines)
        except CallError:
            # What the watch cuts leaves the server at work; every other error is its own answer, or none.
            self.over = self._watch.cause is None
            raise
        self._chunks = cast("AsyncGenerator[bytes, None]", self._response.aiter_raw())
        kind = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != SSE_TYPE:
            raise await self._no_stream(self._chunks)

    async def take(self) -> list[SseEvent]:
        """Return the next events, as many as are there; none when the body has ended.

        Raises:
            CallError: Time ran out, the connection broke, an event is too large, or the engine was closed.
        """
        chunks = self._chunks
        assert chunks is not None
        try:
            with self._watch:
                async for chunk in chunks:
                    if events := self._decoder.feed(chunk):
                        return events
        except self._upstream.broken as error:
            self.over = True
            raise self._upstream.sorted(error, begun=True) from None
        self.over = self._whole = True
        return []

    async def finish(self) -> None:
        """After the last event: read the end of the body, so that the connection can be used again."""
        self.over = True
        assert self._chunks is not None
        read = 0
        with anyio.move_on_after(_TAIL_S):
            try:
                async for chunk in self._chunks:
                    read += len(chunk)
                    if read > _TAIL_BYTES:
                        return
                self._whole = True
            except self._upstream.broken as error:
                self._upstream.sorted(error, begun=True)

    async def stop(self, cause: CallError) -> None:
        """End the generation from outside, on its own loop; one that waits for the server is closed then.

        One whose reader is busy elsewhere, maybe for ever, finds the end when it looks again.
        """
        waited_for = self._watch.waiting
        self._watch.cut(cause)
        if waited_for:
            await self._closed.wait()

    async def close(self) -> None:
        """Close the connection, unless its answer was read to the end; shielded and bounded."""
        try:
            await self._hang_up()
        finally:
            self._watch.close()
            self._upstream.leave(self)
            lane, self._lane = self._lane, None
            if lane is not None:
                lane.room.release()
            self._closed.set()

    def confirm(self) -> None:
        """Tell the call that the server has stopped."""
        if self._call is not None:
            self._call.upstream_confirmed()

    async def _hang_up(self) -> None:
        response = self._response
        if response is None:
            return
        with anyio.move_on_after(self._upstream.patience.close_s, shield=True) as scope:
            try:
                await response.aclose()
                if not self._whole:
                    await self._cut_off(response)
            except self._upstream.broken as error:
                self._upstream.sorted(error, begun=True)
        if scope.cancelled_caught:
            _log.warning("%s: a connection did not close in time", self._upstream.name)

    async def _cut_off(self, response: httpx.Response) -> None:
        """Close what is below the answer: the client believes it closed where a second cancel broke into its
        closing, and leaves it open for good."""
        network = response.extensions.get("network_stream")
        if network is not None:
            await network.aclose()

    async def _no_stream(self, chunks: AsyncGenerator[bytes, None]) -> CallError:
        # Some servers answer 200 with an error object, or ignore that a stream was asked for.
        body = bytearray()
        try:
            with self._watch:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > _TAIL_BYTES:
                        break
        except CallError as error:
            return error
        except self._upstream.broken as error:
            return self._upstream.sorted(error, begun=True)
        told = faults.told_in(bytes(body))
        if told is not None:
            return faults.of_told(self._upstream.name, told, self._upstream.secrets)
        return faults.garbled(self._upstream.name, "did not answer with a stream of events")
