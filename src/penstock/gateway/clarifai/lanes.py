"""One data stream of a replica, and the item it carries."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Protocol

from clarifai_grpc.grpc.api.status import status_pb2
from google.protobuf.message import DecodeError

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.forms import Form, Request
from penstock.gateway.clarifai.streams import (
    DataStream,
    Event,
    Finished,
    Lost,
    Phase,
    Said,
    Told,
    end_of_input,
)

AHEAD = 1024 * 1024
"""Bytes that are read beyond what a call may be ahead.  A thread of the replica that has written all of an
item goes on to its next, and cuts off what was not read of the last: it is better read soon."""
MAX_UNSENT = 64 * 1024 * 1024
"""Bytes of input that may wait for a replica to take them."""


class Line(Protocol):
    """What carries a stream; everything returns at once."""

    @property
    def unsent(self) -> int:
        """Bytes that wait to be written."""
        ...

    def send(self, told: Told) -> None:
        """Write a message."""
        ...

    def recall(self) -> bool:
        """Drop what waits to be written; returns whether nothing was written before."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def end(self) -> None:
        """End the stream behind what was written, so that the replica opens the next at once."""
        ...

    def refuse(self, status: status_pb2.Status) -> None:
        """End the stream and say why; the replica comes back in a second."""
        ...


class Sink(Protocol):
    """Is told what becomes of an item."""

    def output(self, text: bytes) -> None: ...
    def finished(self, how: Finished) -> None: ...
    def lost(self, why: str) -> None: ...


@dataclass(frozen=True)
class Item:
    """What is to run.

    Attributes:
        text: The input, JSON.
        requests: What that is in Clarifai's messages.
        request_id: Of the call; the replica's logs call it so.
        window: Bytes of outputs that may be untaken.
        item_id: What the replica knows it by; empty: any id.
        primary: Whether only the stream of the replica's main thread will do.
    """

    form: Form
    text: bytes
    requests: list[Request]
    request_id: str
    window: int
    sink: Sink
    item_id: str = ""
    primary: bool = False


class Owner(Protocol):
    """The replica."""

    def now(self) -> float: ...
    def send_cancel(self, item_id: str) -> bool:
        """Say on the control stream that an item is cancelled; returns whether there is one."""
        ...

    def lane_free(self, lane: Lane) -> None:
        """The item of a lane is over; the replica closes the lane, and opens another in its place."""
        ...

    def lane_over(self, lane: Lane, *, comes_again: bool) -> None:
        """A lane is of no more use.

        Args:
            comes_again: The replica opens another in its place, at once.
        """
        ...


class Lane:
    """Carries items' messages between a call and a replica.

    Args:
        owner: Is told what it needs to know.
        line: Carries the messages.
        primary: Whether it is the one of the replica's main thread.
    """

    def __init__(self, owner: Owner, line: Line, *, primary: bool = False) -> None:
        self.stream = DataStream()
        self.primary = primary
        self.since = owner.now()
        """Seconds, when it opened, or its item began or ended."""
        self.reading_since: float | None = None
        """When the read that is under way began; None if there is none."""
        self._owner = owner
        self._line = line
        self._item: Item | None = None
        self._held: bytes | None = None  # the input of an item that waits for its first item of input
        self._ahead = 0
        self._closed = False

    @property
    def used(self) -> bool:
        """Whether it has had an item."""
        return self._item is not None

    @property
    def may_read(self) -> bool:
        """Whether more of it is to be read."""
        return self._item is None or not self.stream.wanted or self._ahead < self._item.window + AHEAD

    # -- what runs -----------------------------------------------------------------------------------

    def begin(self, item: Item) -> None:
        """Have the replica run an item."""
        self._item = item
        self.since = self._owner.now()
        self.stream.begin(item.item_id or uuid.uuid4().hex, item.form)
        if not item.requests:
            self._held = item.text
        for request in item.requests:
            self._send(self.stream.carry(request, item.request_id))

    def input(self, text: bytes) -> None:
        """Hand on an item of input; one that does not fit ends the call."""
        if self._item is None or self.stream.phase is not Phase.BUSY:
            return
        try:
            request = self._item.form.further(text, self._held)
        except CallError as error:
            self.fail(error)
            return
        self._held = None
        self._send(self.stream.carry(request, self._item.request_id))
        if self._line.unsent > MAX_UNSENT:
            text_ = f"{self._line.unsent} bytes of input wait for the runner; send more slowly"
            self.fail(CallError(text_, ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=1))

    def end_input(self) -> None:
        """No more input comes."""
        if self._held is None:
            self._send(self.stream.end_input())
        elif self.stream.phase is Phase.BUSY:
            text = (
                "a stream of input that has no item cannot be handed to a Clarifai runner; send at least one"
            )
            self.fail(CallError(text, ErrorCode.INVALID_ARGUMENT))

    def credit(self, size: int) -> None:
        """So many bytes of outputs have been taken."""
        could = self.may_read
        self._ahead -= size
        if not could and self.may_read:
            self._line.resume()

    def cancel(self) -> bool:
        """Cancel the item; returns whether its end is waited for, which ``close`` brings about."""
        if not self.stream.cancel():
            return False
        self._line.resume()
        if self._held is not None or self._line.recall():
            self.close("it was cancelled")  # the replica never had it
            return False
        if not self._owner.send_cancel(self.stream.item_id):
            self.close("it was cancelled")
            return False
        return True

    def fail(self, error: CallError) -> None:
        """End the item, which cannot go on."""
        self._owner.send_cancel(self.stream.item_id)
        self._end(self.stream.fail(error))

    def close(self, why: str) -> None:
        """End the stream; its item too, if it has one."""
        if not self._closed:
            comes_again = self.stream.phase is not Phase.BUSY or self._held is not None
            self._end(self.stream.cut(why), comes_again=comes_again)

    def refuse(self, status: status_pb2.Status) -> None:
        """End the stream, with a reason."""
        if not self._closed:
            self._over(self.stream.cut("it was refused"), comes_again=False)
            self._line.refuse(status)

    # -- from the line -------------------------------------------------------------------------------

    def heard(self, data: bytes) -> None:
        """Take a message of the replica."""
        try:
            said = Said.FromString(data)
        except DecodeError as error:
            self._end_at_fault(self.stream.garbage(str(error)))
            return
        busy = self.stream.phase is Phase.BUSY
        events = self.stream.feed(said)
        if self.stream.fault:
            self._end_at_fault(events)
            return
        self._tell(events)
        if busy and self.stream.phase is Phase.ENDED:
            self.since = self._owner.now()
            self._owner.lane_free(self)

    def half_closed(self) -> None:
        """The replica has said all."""
        self._over(self.stream.half_close(), comes_again=self.used)

    def broke(self, why: str) -> None:
        """The stream is gone."""
        self._over(self.stream.cut(why), comes_again=False)

    # -- inside --------------------------------------------------------------------------------------

    def _send(self, told: Told | None) -> None:
        if told is not None:
            self._line.send(told)

    def _end_at_fault(self, events: list[Event]) -> None:
        self._owner.send_cancel(self.stream.item_id)
        self._end(events)

    def _end(self, events: list[Event], *, comes_again: bool = False) -> None:
        self._over(events, comes_again=comes_again)
        self._line.end()

    def _over(self, events: list[Event], *, comes_again: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._owner.lane_over(self, comes_again=comes_again)
        self._tell(events)

    def _tell(self, events: list[Event]) -> None:
        item = self._item
        if item is None:
            return
        for event in events:
            if isinstance(event, bytes):
                self._ahead += len(event)
                item.sink.output(event)
            elif isinstance(event, Lost):
                item.sink.lost(event.why)
            else:
                item.sink.finished(event)


PROOF = end_of_input().SerializeToString()
"""Written behind a half-close: where that was no half-close but a stream cut off, it cannot be."""
