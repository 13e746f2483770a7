"""Readers of a call's log, and the window that holds its producer back.

A producer waits when it is a window ahead of its *fastest* reader: a slow onlooker holds nobody back, and
learns that it was overrun.  With no reader nothing holds the producer back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import CallLog
from penstock.protocol.dispatch import Batch

MAX_BATCH = 64 * 1024  # bytes of one write: what waits in a transport is in the log as well


class Readers:
    """The readers of one log.

    Args:
        log: What they read.
        window: Bytes the producer may be ahead of the fastest of them.
        kept: Bytes of frames to keep for those who come back.
        all_gone: Called when the last one has detached.
    """

    def __init__(self, log: CallLog, window: int, kept: int, all_gone: Callable[[], None]) -> None:
        self.full_at = window  # the producer must call ``room`` once the log's size reaches this
        self._log = log
        self._window = window
        self._kept = kept
        self._all_gone = all_gone
        self._attached: tuple[WindowedReader, ...] = ()
        self._room: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._attached)

    @property
    def holding(self) -> bool:
        """Whether the producer waits for them."""
        return self._room is not None

    def reader(self, after: int) -> WindowedReader:
        """Return a reader behind frame ``after``.

        Raises:
            CallError: ``invalid_argument``; there is no such frame yet.
            ReplayTruncated: Frames after it are no longer kept.
        """
        if not -1 <= after < self._log.next_seq:
            raise CallError(
                f"after={after} is not a frame of this call; the last one is {self._log.next_seq - 1}",
                ErrorCode.INVALID_ARGUMENT,
            )
        if after + 1 < self._log.first_seq:
            self._log.read(after, 1)  # says what is still kept
        return WindowedReader(self, self._log, after, min(self._window, MAX_BATCH))

    async def room(self) -> None:
        """Let the event loop turn; return once the producer is within its window."""
        self.moved()
        if self._log.size < self.full_at:
            await asyncio.sleep(0)
        while self._log.size >= self.full_at:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def attach(self, reader: WindowedReader) -> None:
        """Count ``reader`` in."""
        self._attached += (reader,)
        self.moved()

    def detach(self, reader: WindowedReader) -> None:
        """Count ``reader`` out; the last one to go decides the call's fate by its policy."""
        self._attached = tuple([other for other in self._attached if other is not reader])
        self.moved()
        if not self._attached:
            self._all_gone()

    def rest(self) -> None:
        """Tell nobody any more: the call has ended, and who reads it now changes nothing."""
        self._all_gone = _nobody

    @property
    def unread(self) -> int:
        """Bytes that the fastest reader has not had; 0 without a reader."""
        attached = self._attached
        if not attached:
            return 0
        fastest = attached[0].position if len(attached) == 1 else max([other.position for other in attached])
        return self._log.size - fastest

    def trim(self) -> None:
        """Forget the oldest frames past the kept size, but none that the fastest reader has not had."""
        self._log.trim(max(self._kept, self.unread))

    def moved(self) -> None:
        """Recompute the window's end after a reader came, moved or went."""
        size = self._log.size
        self.full_at = size - self.unread + self._window
        # A producer whose reader keeps up never comes to its window's end, where it would trim.
        most = self._kept + self._window
        if size > most and self._log.kept_size > most:
            self.trim()
        if self._room is not None and not self._room.done() and size < self.full_at:
            self._room.set_result(None)


def _nobody() -> None: ...


class WindowedReader:
    """A cursor; ``async with`` attaches it, iterating gives batches until the terminal frame."""

    __slots__ = (
        "_after",
        "_listening",
        "_log",
        "_max_batch",
        "_nudged",
        "_readers",
        "_state",
        "_taken",
        "_waiter",
        "position",
    )

    def __init__(self, readers: Readers, log: CallLog, after: int, max_batch: int) -> None:
        self._readers = readers
        self._log = log
        self._after = after
        self._max_batch = max_batch
        self._state = _DETACHED
        self._nudged = False
        self._listening = False
        self._waiter: asyncio.Future[None] | None = None
        # Bytes its transport is done with, and bytes it was given.
        self.position = self._taken = log.position(after)

    async def __aenter__(self) -> WindowedReader:
        self._readers.attach(self)
        self._state = _READING
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> WindowedReader:
        return self

    async def __anext__(self) -> Batch:
        """Return the frames that are there, once there are any.

        Raises:
            ReplayTruncated: The log was trimmed past this reader.
        """
        if self._taken > self.position:  # it comes back, so it is done with the last batch
            self.position = self._taken
            self._readers.moved()
        while self._state is _READING:
            lines = self._log.read(self._after, self._max_batch)
            if lines:
                return self._take(lines)
            if self._nudged:
                self._nudged = False
                return Batch(self._after + 1, [], None)
            if self._log.ending is not None:  # a cursor behind the terminal frame: nothing can follow
                self._state = _AT_END
                break
            await self._appended()
        raise StopAsyncIteration

    def close(self) -> None:
        """Detach; a pending ``__anext__`` ends the iteration."""
        if self._state is not _DETACHED:
            self._state = _DETACHED
            self._readers.detach(self)
            self._wake()

    def nudge(self) -> None:
        """See ``FrameReader.nudge``."""
        if self._waiter is not None and not self._waiter.done():
            self._nudged = True
            self._wake()

    async def _appended(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        if not self._listening:  # one entry, however often a transport is nudged
            self._listening = True
            self._log.wake_on_append(self._on_append)
        await self._waiter

    def _on_append(self) -> None:
        self._listening = False
        self._wake()

    def _take(self, lines: list[bytes]) -> Batch:
        first = self._after + 1
        self._after += len(lines)
        self._taken = self._log.position(self._after)
        ending = self._log.ending
        if ending is None or self._after < self._log.next_seq - 1:
            return Batch(first, lines, None)
        self._state = _AT_END
        return Batch(first, lines, ending)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


_DETACHED, _READING, _AT_END = "detached", "reading", "at end"
