"""Peers that do not take what is written for them: how long that may last, and what happens then.

One mechanism for HTTP and WebSocket: the transport of either pauses its protocol when too much waits.
"""

from __future__ import annotations

import asyncio
import logging

SLOW_READER_S = 30.0
LEAVE_S = 10.0  # how long a connection that was closed may take to send what is left
STOP_S = 0.5  # ... where the server stops, and has given it time before

_log = logging.getLogger("penstock.server")


class SlowPeer:
    """Drops a peer whose transport does not move.

    Args:
        transport: Where the peer is.
        patience_s: Seconds it may take nothing of what waits for it.
        kind: What the peer speaks, for the log.
    """

    __slots__ = ("_kind", "_leaving", "_loop", "_patience_s", "_slow", "_transport", "_waiting")

    def __init__(self, transport: asyncio.Transport, patience_s: float, kind: str) -> None:
        self._transport = transport
        self._patience_s = patience_s
        self._kind = kind
        self._loop = asyncio.get_running_loop()
        self._waiting = 0  # bytes, when it was last looked at
        self._slow: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None

    @property
    def waited_for(self) -> bool:
        """Whether the peer must take something soon."""
        return self._slow is not None

    def stalled(self) -> None:
        """Say that too much waits: from now on the peer must take some of it."""
        self._waiting = unsent(self._transport)
        self._slow = self._loop.call_later(self._patience_s, self._look)

    def reads(self) -> None:
        """Say that little waits."""
        _cancel(self._slow)
        self._slow = None

    def leave_within(self, seconds: float) -> None:
        """Bound the time in which a connection that was closed may send what is left."""
        if unsent(self._transport):
            _cancel(self._leaving)
            self._leaving = self._loop.call_later(seconds, self._transport.abort)

    def gone(self) -> None:
        """Say that the connection has ended."""
        self.reads()
        _cancel(self._leaving)
        self._leaving = None

    def _look(self) -> None:
        waiting = unsent(self._transport)
        if waiting < self._waiting:  # slow, and alive
            self.stalled()
            return
        _log.warning(
            "slow_consumer: a client over %s took nothing for %g s; it is dropped",
            self._kind,
            self._patience_s,
        )
        self._transport.abort()


def unsent(transport: asyncio.Transport) -> int:
    """Return how many bytes of what was written have not left."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:  # asyncio's TLS transport has forgotten its parts once it was closed twice
        return 0


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
