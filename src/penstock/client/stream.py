"""``AsyncStream``: one call's frames, read on the same machine that wrote them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import anyio
import msgspec

from penstock.client.outcome import error_of, failure_of
from penstock.client.request import encode_input
from penstock.client.transport import Reply, Transport
from penstock.errors import CallError, LocalProtocolError, StreamTruncated
from penstock.protocol.call import Call
from penstock.protocol.dispatch import CancelOutcome
from penstock.protocol.messages import Frame

END_S = 0.5  # how long the end of a response may trail the terminal frame before it is given up

_UNSET = msgspec.UNSET


class AsyncStream:
    """A call being read; made by ``AsyncClient.stream`` and ``AsyncClient.resume``.

    ::

        async with client.stream("predict", prompt="A fox") as stream:
            async for item in stream:
                print(item["chunk"], end="", flush=True)

    Entering opens the call, and returns once it is accepted.  Iterating gives the items, or the answer of a
    command that has no items.  Leaving detaches: what becomes of a call that still runs is decided by its
    ``on_disconnect``.

    Raises:
        CallError: On entering: refused.  On iterating: the call failed.
        CallCancelled: The call was cancelled.
        StreamTruncated: The stream ended without its terminal frame.
        RemoteProtocolError: The server broke the rules of a call's life.
    """

    def __init__(
        self,
        transport: Transport,
        connect: Callable[[], Awaitable[Reply]],
        *,
        task_id: str | None = None,
        after: int | None = None,
    ) -> None:
        self._transport = transport
        self._connect = connect
        self._resumed = after is not None
        self._entered = False
        self._call = Call()
        if after is not None:
            self._call.resume(after)
        self._reply: Reply | None = None
        self._accepted: Frame | None = None  # seen on entering, not yet given to ``frames``
        self._batch: Iterator[Frame] = iter(())
        self._terminal: Frame | None = None
        self._text: list[str] = []
        self._task_id = task_id
        self._request_id: str | None = None

    # -- what is known so far ------------------------------------------------------------------------

    @property
    def task_id(self) -> str:
        """The caller's name for the call.

        Raises:
            LocalProtocolError: It was not given, and the call is not open yet.
        """
        return self._task_id or self._not_open()

    @property
    def request_id(self) -> str | None:
        """The server's own id of the call; None on a stream resumed behind its first frame."""
        return self._request_id

    @property
    def last_seq(self) -> int:
        """Number of the last frame read, -1 before the first: where ``AsyncClient.resume`` continues."""
        return self._call.next_seq - 1

    @property
    def status(self) -> str:
        """Where the call is in its life, as its frames say."""
        return self._call.state.label

    @property
    def text(self) -> str:
        """The text so far: the items' ``chunk`` values joined; of items without one, the last ``text``."""
        self._text = ["".join(self._text)]
        return self._text[0]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured, times in milliseconds; empty until the call has completed."""
        return (self._terminal and self._terminal.metrics) or {}

    # -- reading -------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncStream:
        if self._entered:
            raise LocalProtocolError("a stream is entered once; client.resume(task_id) reads a call again")
        self._entered = True
        self._reply = await self._connect()
        try:
            if not self._resumed:
                await self._read_accepted()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Any:
        """Return the next item."""
        while True:
            for frame in self._batch:
                self._see(frame)
                if frame.data is not _UNSET and frame.status in _WITH_ITEM:
                    return frame.data
            if not await self._read_batch():
                self._raise_failure()
                raise StopAsyncIteration

    async def frames(self) -> AsyncIterator[Frame]:
        """Iterate over the frames themselves, from ``accepted`` to the terminal one, notes included.

        How the call ended is told by its last frame, not raised.

        Raises:
            StreamTruncated: The stream ended without its terminal frame.
            RemoteProtocolError: The server broke the rules of a call's life.
        """
        if self._accepted is not None:
            accepted, self._accepted = self._accepted, None
            yield accepted
        while True:
            for frame in self._batch:
                self._see(frame)
                yield frame
            if not await self._read_batch():
                return

    async def send(self, item: Any) -> None:
        """Hand an item to a command that takes a stream; the stream was opened with ``more_input=True``.

        Raises:
            CallError: It cannot be written, or is refused.  Over a WebSocket, what the server refuses is
                raised by the next read; the call goes on, and so may reading.
            LocalProtocolError: The stream is not open.
        """
        await (self._reply or self._not_open()).send(encode_input(item))

    async def end_input(self) -> None:
        """Say that no more items come.

        Raises:
            CallError: The command takes no stream.
            LocalProtocolError: The stream is not open.
        """
        await (self._reply or self._not_open()).end_input()

    async def cancel(self) -> CancelOutcome:
        """Cancel the call; its ``cancelled`` frame ends the stream, unless it had finished before.

        Raises:
            CallError: ``not_found``: the server has forgotten it.
            LocalProtocolError: The stream is not open.
        """
        return await self._transport.cancel(self._request_id or self.task_id)

    # -- inside --------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        reply, self._reply, self._batch = self._reply, None, iter(())
        if reply is not None:
            await reply.aclose()

    async def _read_accepted(self) -> None:
        await self._read_batch()
        self._accepted = next(self._batch)
        self._see(self._accepted)

    async def _read_batch(self) -> bool:
        """Fetch the next frames; returns False once the terminal one was seen."""
        if self._terminal is not None:
            await self._read_end()
            return False
        try:
            self._batch = iter(await (self._reply or self._not_open()).__anext__())
        except StopAsyncIteration:
            self._raise_truncated()
        return True

    async def _read_end(self) -> None:
        """Read to the end of the response, so that its connection can be used again and a frame too many is
        noticed.  The call has ended; whatever else is wrong with the connection now is of no concern."""
        reply = self._reply or self._not_open()
        with anyio.move_on_after(END_S), suppress(StopAsyncIteration, StreamTruncated, CallError):
            while True:
                for frame in await reply.__anext__():
                    self._call.observe(frame)

    def _see(self, frame: Frame) -> None:
        """Check ``frame`` and remember what it says."""
        if frame.seq is None and frame.status == "error":
            raise error_of(frame)  # of the stream, not of the call: it could not go on
        self._call.observe(frame)
        if frame.status == "streaming":
            self._hear(frame.data)
        elif frame.status == "accepted":
            self._task_id = frame.task_id or self._task_id
            self._request_id = frame.request_id
        elif self._call.state.terminal:
            self._terminal = frame
            self._hear(frame.data)

    def _hear(self, item: Any) -> None:
        if type(item) is str:
            self._text.append(item)
        elif type(item) is dict:
            if type(chunk := item.get("chunk")) is str:
                self._text.append(chunk)
            elif type(text := item.get("text")) is str:
                self._text = [text]

    def _raise_failure(self) -> None:
        if self._terminal is not None and (failure := failure_of(self._terminal)) is not None:
            raise failure

    def _raise_truncated(self) -> NoReturn:
        name = self._task_id or "a call that was not accepted"
        how = f"; client.resume({name!r}, after={self.last_seq}) may read the rest" if self._task_id else ""
        raise StreamTruncated(
            f"the stream of {name} ended after frame {self.last_seq}, without its terminal frame{how}"
        )

    def _not_open(self) -> NoReturn:
        raise LocalProtocolError("the stream is not open: use `async with client.stream(...) as stream:`")


_WITH_ITEM = frozenset(("streaming", "completed"))
