"""One end of a session that outlives its connections: ``penstock.protocol.reliable``, carried."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from penstock.calls.tasks import TaskOwner
from penstock.protocol.reliable import MAX_KEPT, ReliableSession
from penstock.protocol.session import MAX_MESSAGE, Message

AHEAD = 1024 * 1024  # bytes that the other side has not acknowledged; past it `put` waits

_log = logging.getLogger("penstock.link")


class Connection(Protocol):
    """Carries parcels to the other side, each whole and in order."""

    async def send(self, data: bytes) -> None:
        """Write a parcel; returns when more is taken.

        Raises:
            OSError: Nobody is there any more.
        """
        ...

    def close(self, code: int, reason: str) -> None:
        """Close, behind what was written; returns at once, and whatever the other side does."""
        ...


class SessionLink:
    """Sends messages over whatever connection there is; all that waits leaves in one write.

    Args:
        tasks: Owns the task that writes; there is one only while there is something to write.
        max_message: Bytes that one message may have.
        max_kept: Bytes that may wait for the other side.
    """

    def __init__(self, tasks: TaskOwner, max_message: int = MAX_MESSAGE, max_kept: int = MAX_KEPT) -> None:
        self.max_message = max_message
        self._tasks = tasks
        self._session = ReliableSession(max_kept, max_message)
        self._writing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._moved: asyncio.Future[None] | None = None
        self.connection: Connection | None = None
        """The one in use; None between two."""
        self.closed = False

    @property
    def received(self) -> int:
        """Number of the last message received."""
        return self._session.received

    @property
    def unacknowledged(self) -> int:
        """Bytes of which the other side has not said that it has them."""
        return self._session.unacknowledged

    # -- what goes out -------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send ``message``, on this connection or a later one; once this is closed it is dropped.

        Raises:
            LocalProtocolError: It is too large, or too much waits.
        """
        if not self.closed:
            self._session.push(message)
            self._write_soon()

    async def put(self, message: Message) -> None:
        """Send ``message`` once the other side is not far behind; whoever waits has its turn in order."""
        async with self._turn:
            await self._until(AHEAD)
            self.send(message)

    async def flushed(self) -> None:
        """Return once the other side has said that it has everything, or this is closed."""
        await self._until(0)

    async def _until(self, size: int) -> None:
        while self._session.unacknowledged > size and not self.closed:
            if self._moved is None:
                self._moved = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._moved,))

    # -- connections ---------------------------------------------------------------------------------

    def attach(self, connection: Connection, received: int) -> None:
        """Go on over ``connection``, behind the last message that the other side has received.

        Raises:
            RemoteProtocolError: It cannot have received that; nothing was changed.
        """
        self._session.resume(received)
        self._stop_writing()
        self.connection = connection
        self._write_soon()

    def detach(self) -> Connection | None:
        """Stop to use the connection, and return it."""
        connection, self.connection = self.connection, None
        self._stop_writing()
        return connection

    def feed(self, parcel: bytes) -> list[Message]:
        """Take a parcel; return the new messages in it.

        Raises:
            RemoteProtocolError: It is none; the connection is of no use any more.
        """
        messages = self._session.feed(parcel)
        self._tell_moved()
        if self._session.owes:
            self._write_soon()
        return messages

    def close(self) -> Connection | None:
        """End the session; what was not taken is lost.  Returns the connection."""
        self.closed = True
        self._tell_moved()
        return self.detach()

    # -- inside --------------------------------------------------------------------------------------

    def _write_soon(self) -> None:
        # In a turn of the event loop of its own, so that what others send in this one leaves with it.
        if self.connection is not None and self._writing is None:
            self._writing = self._tasks.start(self._write(self.connection), name="link: writing")

    async def _write(self, connection: Connection) -> None:
        session = self._session
        try:
            while session.waiting or session.owes:
                await connection.send(session.parcel())
        except OSError as error:
            _log.debug("a parcel was not written: %s", error)  # whoever reads the connection knows as well
            if self.connection is connection:
                self.connection = None
        finally:
            if self._writing is asyncio.current_task():
                self._writing = None

    def _stop_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()

    def _tell_moved(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set_result(None)
