"""``AsyncStream``: one call's frames, over as many connections as it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from penstock.client.backoff import Backoff, Retry, safe_to_repeat, worth_resuming
from penstock.client.outcome import failure_of
from penstock.client.pacing import closer, read_end, sleep
from penstock.client.progress import Progress
from penstock.client.request import encode_input
from penstock.client.transport import Reply, Transport
from penstock.errors import (
    CallError,
    ConnectionFailed,
    LocalProtocolError,
    PenstockError,
    ReplayTruncated,
    StreamTruncated,
)
from penstock.protocol.dispatch import CancelOutcome
from penstock.protocol.messages import Frame

T = TypeVar("T")


@dataclass(frozen=True)
class AsyncSource:
    """What a stream reads.

    Attributes:
        open: Opens the call; None where it was opened before, and is read again.
        cancel: Cancels a call by its id.
        correlation_id: `X-Request-Id` of its requests.
        idempotent: The same request again runs nothing twice.
        own_name: Nobody else ever gave a call the name that this one has.
        resumable: It can be read on behind a dropped connection; not so where items are sent, as it is not
            known which of them came.
    """

    transport: Transport
    retry: Retry
    open: Callable[[], Awaitable[Reply]] | None
    cancel: Callable[[str], Awaitable[CancelOutcome]]
    correlation_id: str
    idempotent: bool = False
    own_name: bool = False
    resumable: bool = True


class AsyncStream(Generic[T]):
    """A call being read; made by ``AsyncClient.stream``, ``AsyncClient.workflow`` and ``AsyncClient.resume``.

    ::

        async with client.stream("predict", prompt="A fox") as stream:
            async for item in stream:
                print(item["chunk"], end="", flush=True)

    Entering opens the call, and returns once it is accepted.  Iterating gives the items, or the answer of a
    command that has no items; without a block, it opens the call.  Where the connection drops, it is read on
    from behind the last frame.  Leaving detaches, and so does forgetting the stream: what becomes of a call
    that still runs is decided by its ``on_disconnect``.

    Raises:
        CallError: On opening: refused.  On iterating: the call failed.
        CallCancelled: The call was cancelled.
        StreamTruncated: The stream ended without its terminal frame, and could not be read on.
        ReplayTruncated: ... as its frames are no longer kept.
        RemoteProtocolError: The server broke the rules of a call's life.
    """

    def __init__(self, source: AsyncSource, *, task_id: str | None = None, after: int | None = None) -> None:
        self._reply: Reply | None = None
        self._source = source
        self._progress = Progress(task_id, after)
        self._backoff = Backoff(source.retry)
        self._opened = source.open is None
        self._entered = False
        self._left = False
        self._fruitful = True  # the connection there is, or was, gave a frame
        self._fault: PenstockError | None = None  # what ended the reading
        self._doubt: CallError | None = None  # what left open whether the call was accepted
        self._accepted: Frame | None = None  # seen on entering, not yet given to ``frames``
        self._batch: Iterator[Frame] = iter(())

    def __del__(self) -> None:
        self._abandon()

    # -- what is known so far ------------------------------------------------------------------------

    @property
    def task_id(self) -> str:
        """The caller's name for the call.

        Raises:
            LocalProtocolError: It was not given, and the call is not open yet.
        """
        return self._progress.task_id or self._not_open()

    @property
    def request_id(self) -> str | None:
        """The server's own id of the call; None on a stream resumed behind its first frame."""
        return self._progress.request_id

    @property
    def correlation_id(self) -> str:
        """`X-Request-Id` of its requests, which the server logs."""
        return self._source.correlation_id

    @property
    def last_seq(self) -> int:
        """Number of the last frame read, -1 before the first: where ``AsyncClient.resume`` continues."""
        return self._progress.last_seq

    @property
    def status(self) -> str:
        """Where the call is in its life, as its frames say."""
        return self._progress.status

    @property
    def text(self) -> str:
        """The text so far: the items' ``chunk`` values joined; of items without one, the last ``text``."""
        return self._progress.text

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured, times in milliseconds; empty until the call has completed."""
        return self._progress.metrics

    # -- reading -------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncStream[T]:
        if self._entered:
            raise LocalProtocolError("a stream is entered once; client.resume(task_id) reads a call again")
        await self._enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave: read no more."""
        self._left = True
        self._batch = iter(())
        await self._drop()

    def __aiter__(self) -> AsyncStream[T]:
        return self

    async def __anext__(self) -> T:
        """Return the next item."""
        see = self._progress.see
        while True:
            for frame in self._batch:
                if see(frame):
                    item: T = frame.data
                    return item
            if not await self._read_batch():
                self._raise_failure()
                raise StopAsyncIteration

    async def frames(self) -> AsyncIterator[Frame]:
        """Iterate over the frames themselves, from ``accepted`` to the terminal one, notes included.

        How the call ended is told by its last frame, not raised.

        Raises:
            StreamTruncated: The stream ended without its terminal frame, and could not be read on.
            RemoteProtocolError: The server broke the rules of a call's life.
        """
        if not self._entered:
            await self._enter()
        if self._accepted is not None:
            accepted, self._accepted = self._accepted, None
            yield accepted
        while True:
            for frame in self._batch:
                self._progress.see(frame)
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
        if not self._entered:
            self._not_open()
        return await self._source.cancel(self.request_id or self.task_id)

    # -- inside --------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        self._entered = True
        self._close_soon = closer()
        try:
            if self._source.open is None:
                await self._connected()
            else:
                while self._accepted is None:
                    await self._read_batch()
                    self._accepted = next(self._batch, None)
                self._progress.see(self._accepted)
        except BaseException:
            await self.aclose()
            raise

    def _abandon(self) -> None:
        self._left = True
        reply, self._reply = self._reply, None
        if reply is not None:
            self._close_soon(reply)

    async def _drop(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            await reply.aclose()

    async def _read_batch(self) -> bool:
        """Fetch the next frames; returns False once the terminal one was seen."""
        if self._progress.terminal is not None:
            await self._finish()
            return False
        if self._fault is not None:
            raise self._fault
        if self._left:
            self._not_open()
        if not self._entered:
            await self._enter()
            return True
        while True:
            reply = await self._connected()
            try:
                self._batch = iter(await reply.__anext__())
            except StopAsyncIteration:
                # Behind the last frame of a call there is nothing, and that ends in order.
                await self._recover(StreamTruncated("it ended without one"), final=not self._fruitful)
            except (StreamTruncated, ConnectionFailed) as error:
                await self._recover(error)
            except PenstockError as error:
                raise self._named(error)  # noqa: B904 - it is the same
            except (KeyboardInterrupt, SystemExit):
                self._abandon()  # who keeps the traceback, as a notebook does, would keep the call running
                raise
            else:
                self._fruitful = True
                self._backoff.reset()
                return True

    async def _connected(self) -> Reply:
        while self._reply is None:
            try:
                self._reply = await self._connect()
            except CallError as error:
                await self._recover(error)
            except PenstockError as error:
                raise self._named(error)  # noqa: B904 - it is the same
        return self._reply

    async def _connect(self) -> Reply:
        source, id_ = self._source, self.request_id or self._progress.task_id
        if self._opened and id_ is not None:
            reply = await source.transport.resume(id_, self.last_seq, source.correlation_id)
            self._fruitful = False
        else:
            # One that has a key and no name is found by that key, until it has said its id.
            reply = await (source.open or self._not_open)()
            self._opened = True
        return reply

    async def _recover(self, error: CallError | StreamTruncated, *, final: bool = False) -> None:
        """Wait until it may be tried again, or raise what is to be told."""
        await self._drop()
        pause_s = None if final or not self._may_try(error) else self._backoff.pause(error)
        if pause_s is None:
            self._fault = self._named(self._told(error))
            raise self._fault from (None if self._fault is error else error)
        await sleep(pause_s)

    def _may_try(self, error: CallError | StreamTruncated) -> bool:
        if self._opened:
            return self._source.resumable and worth_resuming(error)
        if not isinstance(error, CallError):
            return False
        if safe_to_repeat(error, idempotent=self._source.idempotent):
            return True
        # It may have been accepted; if so, it is there under its name.
        if isinstance(error, ConnectionFailed) and self._source.own_name and self._source.resumable:
            self._doubt, self._opened = error, True
        return self._opened

    def _told(self, error: CallError | StreamTruncated) -> PenstockError:
        """Return what to raise where nothing more can be done."""
        if self._doubt is not None and self.request_id is None:
            return self._doubt
        opened_here = self._opened and self._source.open is not None
        if isinstance(error, ReplayTruncated) or not (opened_here or isinstance(error, StreamTruncated)):
            return error
        name = self._progress.task_id or "a call"
        what = f"the stream of {name} ended after frame {self.last_seq}, without its terminal frame"
        return StreamTruncated(
            f"{what}: {error}; client.resume({name!r}, after={self.last_seq}) may read the rest"
        )

    def _named(self, error: PenstockError) -> PenstockError:
        error.correlation_id = self._source.correlation_id
        return error

    async def _finish(self) -> None:
        """Read to the end of the response, where a frame too many is noticed."""
        if self._reply is not None:
            frames = await read_end(self._reply)
            await self._drop()
            for frame in frames:
                self._progress.see(frame)

    def _raise_failure(self) -> None:
        terminal = self._progress.terminal
        if terminal is not None and (failure := failure_of(terminal)) is not None:
            raise self._named(failure)

    def _not_open(self) -> NoReturn:
        raise LocalProtocolError("the stream is not open: use `async with client.stream(...) as stream:`")
