"""A session that outlives its connection: nothing is lost, repeated or reordered when a link drops and comes
back.

Each side numbers its messages from 1 and keeps them until the other has said that it has them.  What is
written to a connection is a parcel: the number of its first message, the number of the last message that was
received, and messages.  When a connection is lost both sides go on; on the next one each says what it has
received (``received``), the other goes on from there (``resume``), and what comes twice is dropped.

Pure: no clock, no event loop, no socket.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import msgspec

from penstock.errors import LocalProtocolError, RemoteProtocolError
from penstock.protocol.session import MAX_MESSAGE, Message, decode_message, encode_message

MAX_KEPT = 256 * 1024 * 1024
"""Bytes of messages that may wait for the other side to say that it has them."""
MAX_PARCEL = 256 * 1024
"""Bytes after which a parcel is full; a larger message has a parcel of its own."""
ACK_BYTES = 64 * 1024
"""Bytes that are received before that is said in a parcel of its own."""


class _Parcel(msgspec.Struct, frozen=True, array_like=True):
    """``first`` is the number of the first message, ``ack`` that of the last one received."""

    first: int
    ack: int
    messages: list[msgspec.Raw]


class ReliableSession:
    """One end of a session.

    Args:
        max_kept: Bytes that may wait to be acknowledged; a peer that lets more pile up has to be given up.
        max_message: Bytes that one message may have, and so a parcel of several.
    """

    def __init__(self, max_kept: int = MAX_KEPT, max_message: int = MAX_MESSAGE) -> None:
        self._max_parcel = min(MAX_PARCEL, max_message)
        self._max_kept = max_kept
        self._max_message = max_message
        self._kept: deque[bytes] = deque()  # encoded; the first has the number `_acknowledged + 1`
        self._kept_size = 0
        self._acknowledged = 0
        self._sent = 0  # number of the last message written to this connection
        self._told = 0  # what we have said last that we have received
        self._untold = 0  # bytes received since
        self.received = 0
        """Number of the last message received, all before it having been received too."""

    @property
    def last(self) -> int:
        """Number of the last message pushed."""
        return self._acknowledged + len(self._kept)

    @property
    def unacknowledged(self) -> int:
        """Bytes that wait to be acknowledged."""
        return self._kept_size

    @property
    def waiting(self) -> bool:
        """Whether messages wait to be written to this connection."""
        return self._sent < self.last

    @property
    def owes(self) -> bool:
        """Whether so much was received that it should be said, if only in an empty parcel."""
        return self._untold >= ACK_BYTES

    # -- what goes out -------------------------------------------------------------------------------

    def push(self, message: Message) -> None:
        """Keep ``message`` and have it written with the next parcels.

        Raises:
            LocalProtocolError: It is too large, or too much waits already; nothing was changed.
        """
        data = encode_message(message)
        if len(data) > self._max_message:
            kind = type(message).__name__.lower()
            raise LocalProtocolError(f"a message {kind!r} has {len(data)} bytes, of {self._max_message}")
        if self._kept_size + len(data) > self._max_kept:
            raise LocalProtocolError(f"the other side has not taken {self._kept_size} bytes")
        self._kept.append(data)
        self._kept_size += len(data)

    def parcel(self) -> bytes:
        """Return the next parcel to write; an empty one where nothing waits, which still acknowledges."""
        begin = self._sent - self._acknowledged
        messages: list[msgspec.Raw] = []
        size = 0
        for data in islice(self._kept, begin, None):
            if messages and size + len(data) > self._max_parcel:
                break
            messages.append(msgspec.Raw(data))
            size += len(data)
        parcel = _Parcel(self._sent + 1, self.received, messages)
        self._sent += len(messages)
        self._told, self._untold = self.received, 0
        return _encode(parcel)

    def resume(self, received: int) -> None:
        """Go on on a new connection, behind the last message the other side says it has received.

        Raises:
            RemoteProtocolError: It never was sent, or was acknowledged and forgotten: no session of ours.
        """
        self._acknowledge(received, "resumes")
        self._sent = received

    # -- what comes in -------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Message]:
        """Take one parcel; return the messages in it that are new.

        Raises:
            RemoteProtocolError: It is none, or messages before it are missing.  Nothing was changed; the
                connection is of no use any more.
        """
        parcel = _read(data)
        if parcel.first < 1 or parcel.first > self.received + 1:
            raise RemoteProtocolError(f"message {parcel.first} came where {self.received + 1} was due")
        new = parcel.messages[self.received + 1 - parcel.first :]
        messages = [decode_message(bytes(raw), self._max_message) for raw in new]
        self._acknowledge(parcel.ack, "acknowledges")
        self.received += len(messages)
        self._untold += len(data) if messages else 0
        return messages

    def _acknowledge(self, number: int, what: str) -> None:
        if not self._acknowledged <= number <= self.last:
            raise RemoteProtocolError(
                f"the other side {what} message {number}; here {self._acknowledged} to {self.last} can be"
            )
        for _ in range(number - self._acknowledged):
            self._kept_size -= len(self._kept.popleft())
        self._acknowledged = number
        self._sent = max(self._sent, number)


def _read(data: bytes) -> _Parcel:
    try:
        return _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not a parcel: {error}") from error


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Parcel).decode
