"""How far one call has been read, by the rules of a call's life."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.client.outcome import error_of
from penstock.protocol.call import Call, State
from penstock.protocol.messages import Frame

_UNSET = msgspec.UNSET
_STREAMING = State.STREAMING


class Progress:
    """What the frames of a call have said so far.

    Args:
        task_id: The caller's name for the call, where it has one.
        after: Number of the last frame that is not wanted; None for a call that is opened here.

    Attributes:
        request_id: The server's own id of the call, once it is known.
        terminal: The last frame, once it has come.
    """

    __slots__ = ("_call", "_heard", "request_id", "task_id", "terminal")

    def __init__(self, task_id: str | None, after: int | None) -> None:
        self._call = Call()
        if after is not None:
            self._call.resume(after)
        self._heard: list[str] = []
        self.task_id = task_id
        self.request_id: str | None = None
        self.terminal: Frame | None = None

    @property
    def last_seq(self) -> int:
        """Number of the last frame seen, -1 before the first."""
        return self._call.next_seq - 1

    @property
    def status(self) -> str:
        """Where the call is in its life."""
        return self._call.state.label

    @property
    def text(self) -> str:
        """The items' ``chunk`` values joined; of items without one, the last ``text``."""
        self._heard = ["".join(self._heard)]
        return self._heard[0]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured; empty until the call has completed."""
        return (self.terminal and self.terminal.metrics) or {}

    def see(self, frame: Frame) -> bool:
        """Check a frame and remember what it says; return whether it has an item.

        Raises:
            CallError: It says that the stream cannot go on.
            RemoteProtocolError: The server may not send it now.
        """
        call = self._call
        if frame.status == "streaming" and frame.seq == call.next_seq and call.state is _STREAMING:
            call.next_seq += 1  # the step of nearly every frame, taken without a call
            self._hear(frame.data)
            return frame.data is not _UNSET
        return self._see_rare(frame)

    def _see_rare(self, frame: Frame) -> bool:
        if frame.seq is None and frame.status == "error":
            raise error_of(frame)  # of the stream, not of the call: it could not go on
        self._call.observe(frame)
        if frame.status == "accepted":
            self.task_id = frame.task_id or self.task_id
            self.request_id = frame.request_id
        elif self._call.state.terminal:
            self.terminal = frame
        if frame.status not in _WITH_ITEM:
            return False
        self._hear(frame.data)
        return frame.data is not _UNSET

    def _hear(self, item: Any) -> None:
        if type(item) is dict:
            if type(chunk := item.get("chunk")) is str:
                self._heard.append(chunk)
            elif type(text := item.get("text")) is str:
                self._heard = [text]
        elif type(item) is str:
            self._heard.append(item)


_WITH_ITEM = frozenset(("streaming", "completed"))
