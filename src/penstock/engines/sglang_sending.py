"""One request to an SGLang server, which outlives whoever sent it, until the server has stopped.

Leaving the connection is not enough: there are releases of SGLang that then work on to the last token, and
forget the id by which they could be told to stop.  So the order is: say ``/abort_request`` while the
connection stands, read on until the server says its last, then close.  And since an abort of an id that the
server does not know yet does nothing, one that is due before the answer has begun waits for that.

Therefore a task of its own sends the request and reads the answer; a cancel of its reader does not touch it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

import anyio
import httpx

from penstock.calls import ambient
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError

if TYPE_CHECKING:
    from penstock.engines.sglang_names import Names

_log = logging.getLogger("penstock.engines")

# What is read ahead of a slow reader, and of what follows an abort, in bytes.
_AHEAD = 1024 * 1024
# How much of the time to close the server has to say its last after an abort: it needs one step of its model.
_OF_CLOSING = 0.25
# An abort that is lost is said once more; one that came too early for the server is as good as lost.
_ABORTS = 2
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# At the start of a line, where no text of the model can stand.
_LAST_EVENT = b"\ndata: [DONE]"
_OVERLAP = len(_LAST_EVENT) - 1


class AsyncNetworkStream(Protocol):
    """The connection below an answer."""

    async def aclose(self) -> None:
        """Close it."""
        ...


class Asking(Protocol):
    """Makes the request for an id."""

    def __call__(self, rid: str) -> httpx.Request:
        """Return the request that carries ``rid``."""
        ...


class Progress(Protocol):
    """What is known of the answer."""

    rid: str
    """By which id the server knows it."""
    over: bool
    """The server said its last."""


class Place(Protocol):
    """The server: what is asked where, and what is kept of it."""

    engine_id: str
    abort_url: str
    close_s: float
    names: Names
    tasks: TaskOwner


class Sending(httpx.AsyncByteStream):
    """One attempt at a generation; to httpx it is the body of the answer, and closing it ends the work.

    Args:
        place: The server.
        http: The client of the running loop.
        request: Makes the request, for an id.
        request_id: The call's own id.
        progress: What is known of the answer; it is told the id.
    """

    def __init__(
        self, place: Place, http: httpx.AsyncClient, request: Asking, request_id: str, progress: Progress
    ) -> None:
        self._place = place
        self._http = http
        self._request_id = request_id
        self._progress = progress
        self._rid = progress.rid = place.names.take(request_id)
        self._call = ambient.current.get()
        self._inner: httpx.AsyncByteStream | None = None
        self._error: Exception | None = None
        self._network: AsyncNetworkStream | None = None
        self._read = False
        self._ended = False
        self._tail = b""
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._leaving = False
        self._left = asyncio.Event()
        self._task = place.tasks.start(
            self._run(request(self._rid)), name=f"sglang {self._rid}", awaited=True
        )

    async def open(self) -> None:
        """Return when the answer begins; a cancel meanwhile stops the work first.

        Raises:
            Exception: What httpx or its hooks raise when it does not begin.
        """
        try:
            while self._inner is None and self._error is None:
                await self._change()
        finally:
            if self._inner is None:
                await self.aclose()
        if self._inner is None and self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._size -= len(chunk)
                self._room.set()
                yield chunk
            if self._read:
                if self._error is not None:
                    raise self._error
                return
            await self._change()

    async def aclose(self) -> None:
        """Stop the work, if the server has it and has not come to its end, and close the connection."""
        if self._leaving:
            await self._left.wait()
            return
        self._leaving = True
        self._room.set()
        await self._place.tasks.finish(self._stop(), name=f"stop sglang {self._rid}")

    async def _stop(self) -> None:
        try:
            with anyio.move_on_after(self._place.close_s):
                if await self._has_it():
                    await self._call_off()
        finally:
            await self._hang_up()

    async def _run(self, request: httpx.Request) -> None:
        try:
            response = await self._http.send(request, stream=True)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            self._network = response.extensions.get("network_stream")
            self._inner, response.stream = response.stream, self
            self._changed.set()
            async for chunk in self._inner:
                self._take(chunk)
                while self._size > _AHEAD and not self._leaving:
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:  # noqa: BLE001 - the top of a task; it is raised where the answer is read
            self._error = error
        finally:
            self._read = True
            self._changed.set()

    def _take(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        # Seen here, so that an end which its reader has not come to yet is no reason for an abort.
        if not self._ended:
            self._ended = _LAST_EVENT in chunk or _LAST_EVENT in self._tail + chunk[:_OVERLAP]
            self._tail = chunk[-_OVERLAP:] if len(chunk) >= _OVERLAP else (self._tail + chunk)[-_OVERLAP:]
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _has_it(self) -> bool:
        """Whether the server may be at work on this."""
        if self._progress.over or self._ended:
            return False
        with anyio.move_on_after(self._place.close_s / 2):
            while self._inner is None and self._error is None:
                await self._change()
        # Whoever refused it, or was never asked, has nothing to stop.
        return self._inner is not None or not isinstance(self._error, (CallError, *_NEVER_SENT))

    async def _call_off(self) -> None:
        for _ in range(_ABORTS):
            # Without an answer there is nothing to read on: whether it helped, nobody can tell.
            if not await self._abort() or self._inner is None:
                return
            with anyio.move_on_after(self._place.close_s * _OF_CLOSING):
                await self._said_its_last()
                over = self._ended or (self._read and self._error is None)
                if over and self._call is not None:
                    self._call.upstream_confirmed()
                return
        _log.warning("%s: %s was aborted, and goes on", self._place.engine_id, self._rid)

    async def _abort(self) -> bool:
        """Tell the server to stop; whether it has heard."""
        post = self._http.post(self._place.abort_url, json={"rid": self._rid})
        try:
            # In a context of its own: what watches the answer to our request must not take this one for it.
            await contextvars.Context().run(self._place.tasks.start, post, awaited=True)
        except (CallError, httpx.HTTPError, OSError, RuntimeError) as error:
            # A client that was closed meanwhile, as its engine was, says so by a plain RuntimeError.
            said = f"{type(error).__name__}: {error}"
            _log.warning("%s: %s could not be aborted (%s)", self._place.engine_id, self._rid, said)
            return False
        return True

    async def _said_its_last(self) -> None:
        """Read on to the end, or until it is clear that this is no answer."""
        self._size = 0
        while not self._read and not self._ended and self._size <= _AHEAD:
            self._chunks.clear()
            await self._change()

    async def _hang_up(self) -> None:
        try:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._progress.over and self._network is not None:
                # Even if it was read to its end by now: a cancelled call's connection is not used again.
                await self._network.aclose()
            if self._inner is not None:
                await self._inner.aclose()
        finally:
            self._place.names.give_back(self._request_id)
            self._left.set()
