"""One end of a link between two processes: the session codec on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from penstock.errors import ProtocolError
from penstock.protocol.session import Message, SessionCodec

WRITE_BUFFER = 1024 * 1024  # bytes; past it `put` waits


class Link(asyncio.Protocol):
    """Carries messages both ways; use it as the protocol of a stream socket.

    Args:
        heard: Takes each message, on the event loop.
        lost: Told once, in words, why no more will come.
    """

    def __init__(self, heard: Callable[[Message], None], lost: Callable[[str], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._codec = SessionCodec()
        self._transport: asyncio.Transport | None = None
        self._full: asyncio.Future[None] | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def send(self, message: Message) -> None:
        """Send ``message``; on a link that is gone it is dropped.

        Raises:
            LocalProtocolError: It is too large for any link.
        """
        data = self._codec.encode(message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def put(self, message: Message) -> None:
        """Send ``message``; returns once the peer has taken most of what was sent, or is gone."""
        self.send(message)
        if self._full is not None:
            await asyncio.wait((self._full,))

    def abort(self) -> None:
        """Close now; what was not sent yet is lost."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        # Not every event loop's transports are subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        try:
            for message in self._codec.feed(data):
                self._heard(message)
        except ProtocolError as error:
            self._tell(f"broke the protocol: {error}")
            self.abort()

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._full = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        full, self._full = self._full, None
        if full is not None:
            full.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.resume_writing()
        self._tell("closed its link")
        if not self.closed.done():
            self.closed.set_result(None)

    def _tell(self, why: str) -> None:
        lost, self._lost = self._lost, _nobody
        lost(why)


def _nobody(_: str) -> None:
    pass
