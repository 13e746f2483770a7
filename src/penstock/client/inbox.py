"""What came for one call over a WebSocket and was not read yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.errors import ConnectionFailed, PenstockError, StreamTruncated
from penstock.protocol.messages import Frame

MAX_WAITING = 2 * 1024 * 1024  # bytes of frames; a call that outruns its reader further is set apart

_TERMINAL = frozenset(("completed", "error", "cancelled"))


def ends_call(frame: Frame) -> bool:
    """Whether ``frame`` is the last of its call."""
    return frame.seq is not None and frame.status in _TERMINAL


def _nothing() -> None: ...


class Inbox:
    """Frames on their way from a socket to the reader of one call.

    Args:
        name: What the caller named the call.

    Attributes:
        on_full: Called by a socket that cannot wait when ``full`` is reached.
        began: The call is there: a frame of it has come, or it was confirmed.
        refusal: What came in place of the first frame.
        ended: Nothing more comes.
        left: The server was told that nobody reads it any more on a shared socket.
        last_seq: Number of the last frame that came.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.on_full: Callable[[], object] = _nothing
        self.began = False
        self.refusal: Frame | None = None
        self.ended = False
        self.left = False
        self.last_seq = -1
        self.request_id: str | None = None
        self._frames: list[Frame] = []
        self._size = 0
        self._fault: PenstockError | None = None
        self._arrived = asyncio.Event()
        self._emptied = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether the reader is too far behind."""
        return self._size > MAX_WAITING

    # -- whoever has the socket ----------------------------------------------------------------------

    def put(self, frame: Frame, size: int) -> None:
        """Add a frame that has ``size`` bytes on the wire."""
        if frame.seq is not None:
            self.began = True
            self.last_seq = frame.seq
            self.request_id = frame.request_id or self.request_id
        elif not self.began:
            self.refusal = frame
        self._frames.append(frame)
        self._size += size
        if self.refusal is not None or ends_call(frame):
            self.end()
        self._arrived.set()

    def put_item(self, frame: Frame, size: int) -> bool:
        """Add a frame that has an item; return whether the reader is now too far behind."""
        if not self.began or frame.seq is None:
            self.put(frame, size)
        else:
            self.last_seq = frame.seq
            self._frames.append(frame)
            self._size += size
            self._arrived.set()
        return self._size > MAX_WAITING

    def confirm(self) -> None:
        """Say that the call is read, though it says nothing."""
        self.began = True
        self._arrived.set()

    def end(self) -> None:
        """Say that nothing more comes."""
        self.ended = True
        self._arrived.set()
        self._emptied.set()

    def fail(self, reason: str) -> None:
        """Say that the connection is gone, which matters only where the call has not ended."""
        if not self.ended:
            self._fault = (
                StreamTruncated(f"the connection broke within the stream ({reason})")
                if self.began
                else ConnectionFailed(
                    f"the connection broke before there was an answer ({reason}); try again"
                )
            )
            self.end()

    async def room(self) -> None:
        """Return once the reader has caught up."""
        while self.full and not self.ended:
            self._emptied.clear()
            await self._emptied.wait()

    # -- the reader ----------------------------------------------------------------------------------

    async def first(self) -> None:
        """Return once something has come.

        Raises:
            ConnectionFailed: Nothing will.
        """
        await self._arrived.wait()
        if not self._frames and self._fault is not None:
            raise self._fault

    async def take(self) -> list[Frame]:
        """Return the frames that are there, once there are any.

        Raises:
            StopAsyncIteration: The call has ended.
            StreamTruncated: The connection broke before that.
        """
        while not self._frames:
            if self._fault is not None:
                raise self._fault
            if self.ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        frames, self._frames, self._size = self._frames, [], 0
        self._emptied.set()
        return frames
