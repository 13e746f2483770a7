"""The life of one call: the only state machine there is, and the log it fills.

The rules:

1. A call moves only by looking a step up in ``_NEXT``; nobody assigns a state.
2. An illegal step changes nothing and raises.
3. There is exactly one terminal frame, it is the last, and the first to come wins: later ones are
   dropped and counted.
4. Frames are numbered from 0 without a gap; the first is ``accepted``.
5. Every side runs this machine: the server through ``CallLog``, a client through ``Call.observe``.

Nothing here waits, and nobody here knows the time: it is passed in.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from enum import IntEnum
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from penstock.errors import CallError, LocalProtocolError, RemoteProtocolError, ReplayTruncated
from penstock.protocol.messages import CancelReason, CancelTimes, Frame, FrameWriter, Note, WireForm
from penstock.protocol.values import encode_value


class State(IntEnum):
    """Where a call is in its life."""

    ACCEPTED = 0
    STREAMING = 1
    COMPLETED = 2
    FAILED = 3
    CANCELLED = 4

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self >= State.COMPLETED

    @property
    def label(self) -> str:
        """The name on the wire, as in a frame's ``status``."""
        return _LABELS[self]


class Step(IntEnum):
    """What may happen to a call."""

    ITEM = 0
    NOTE = 1
    COMPLETE = 2
    FAIL = 3
    CANCEL = 4


_LABELS = {
    State.ACCEPTED: "accepted",
    State.STREAMING: "streaming",
    State.COMPLETED: "completed",
    State.FAILED: "error",
    State.CANCELLED: "cancelled",
}
_ENDS = (State.COMPLETED, State.FAILED, State.CANCELLED)
_NONE = (None,) * 5

# _NEXT[state][step] is the state that follows; None: not allowed.
_NEXT: tuple[tuple[State | None, ...], ...] = (
    (State.STREAMING, State.ACCEPTED, *_ENDS),
    (State.STREAMING, State.STREAMING, *_ENDS),
    _NONE,
    _NONE,
    _NONE,
)

_STEPS: Mapping[str, Step] = {
    "streaming": Step.ITEM,
    "queued": Step.NOTE,
    "progress": Step.NOTE,
    "completed": Step.COMPLETE,
    "error": Step.FAIL,
    "cancelled": Step.CANCEL,
}
_ITEM, _STREAMING = Step.ITEM, State.STREAMING


class Call(msgspec.Struct, gc=False, eq=False):
    """The machine: a state, and the number the next frame has."""

    state: State = State.ACCEPTED
    next_seq: int = 0

    def advance(self, step: Step) -> None:
        """Take ``step``.

        Raises:
            LocalProtocolError: It is not allowed in this state; nothing was changed.
        """
        following = _NEXT[self.state][step]
        if following is None:
            raise LocalProtocolError(f"{step.name.lower()} is not allowed in state {self.state.name.lower()}")
        self.state = following

    def observe(self, frame: Frame, *, answer: bool = False) -> None:
        """Take the step that a received frame tells of.

        Args:
            frame: What the peer sent; a status this version does not know is skipped, as a note.
            answer: The frame is the whole answer of a call that does not stream, so it stands alone and
                may have any number.

        Raises:
            RemoteProtocolError: The peer may not send this now; nothing was changed.
        """
        seq = frame.seq
        if not answer and seq is not None and seq != self.next_seq:
            raise RemoteProtocolError(f"frame {seq} came where {self.next_seq} was due")
        if frame.status == "accepted" or (self.next_seq == 0 and not answer):
            self._observe_first(frame)
        else:
            self._observe_step(frame)
        self.next_seq += 1

    def resume(self, after: int) -> None:
        """Expect the frame that follows ``after`` next, as a reader that attaches again does."""
        self.next_seq = after + 1

    def _observe_first(self, frame: Frame) -> None:
        if frame.status != "accepted" or self.next_seq:
            raise RemoteProtocolError(
                f"{frame.status!r} is frame {self.next_seq}; `accepted` is frame 0, alone"
            )

    def _observe_step(self, frame: Frame) -> None:
        step = _STEPS.get(frame.status, Step.NOTE)
        following = _NEXT[self.state][step]
        if following is None:
            raise RemoteProtocolError(f"{frame.status!r} came after the call was {self.state.label}")
        self.state = following


class Ending(NamedTuple):
    """How a call ended: its terminal state, and what a program needs besides the frame."""

    state: State
    error: CallError | None = None
    reason: CancelReason | None = None


_COMPLETED = Ending(State.COMPLETED)


class CallLog:
    """The append-only, numbered log of one call's frames, each already in wire form.

    One thread appends.  Ends may race one another from any threads, and the first wins; an end that may
    race an item has to come through the thread that appends.

    Args:
        writer: Writes the frames.
        now: Unix seconds at which the call was accepted.
    """

    __slots__ = (
        "_begin",
        "_block",
        "_call",
        "_ends",
        "_finish_lock",
        "_lines",
        "_waiting",
        "_writer",
        "ending",
        "first_seq",
        "late_ends",
        "size",
    )

    def __init__(self, writer: FrameWriter, now: float) -> None:
        self._call = Call()
        self._writer = writer
        self._lines: list[bytes] = []
        self._block = b""  # the kept lines of a packed log, in place of ``_lines``
        self._begin = 0  # byte position of the oldest line kept, counted from the first ever
        self._ends = array("Q")  # byte position behind each kept line
        self._waiting: tuple[Callable[[], None], ...] = ()
        self._finish_lock = Lock()
        self.first_seq = 0  # of the oldest frame kept
        self.size = 0  # bytes ever appended
        self.ending: Ending | None = None
        self.late_ends = 0
        self._append(writer.accepted(0, now))

    @property
    def state(self) -> State:
        """Where the call is in its life."""
        return self._call.state

    @property
    def next_seq(self) -> int:
        """Number of the next frame; one more than the last one's."""
        return self._call.next_seq

    @property
    def kept_size(self) -> int:
        """Bytes of the frames still kept."""
        return self.size - self._begin

    # -- writing -------------------------------------------------------------------------------------

    def item(self, data: object, now: float) -> None:
        """Append one ``streaming`` frame.

        Raises:
            CallError: ``invalid_output``; ``data`` is not JSON.  Nothing was appended.
            LocalProtocolError: The call has ended.
        """
        call = self._call
        line = self._writer.item(data, call.next_seq, now)
        if call.state is not _STREAMING:  # there an item changes nothing
            call.advance(_ITEM)
        # As `_append` does, without a call of it for every token.
        self._lines.append(line)
        self.size += len(line)
        self._ends.append(self.size)
        call.next_seq += 1
        if self._waiting:
            self._wake()

    def note(self, kind: Note, about: Mapping[str, Any], now: float) -> None:
        """Append a ``queued`` or ``progress`` frame.

        Raises:
            LocalProtocolError: The call has ended.
        """
        line = self._writer.note(kind, about, self._call.next_seq, now)
        self._call.advance(Step.NOTE)
        self._append(line)

    def complete(self, answer: object, metrics: Mapping[str, Any], now: float, *, has_answer: bool) -> bool:
        """Append the ``completed`` frame; returns whether it came first.

        Raises:
            CallError: ``invalid_output``; the answer is not JSON.  The call goes on.
        """
        value = encode_value(answer) if has_answer else None
        write = self._writer.completed
        return self._finish(Step.COMPLETE, _COMPLETED, lambda seq: write(value, metrics, seq, now))

    def fail(self, error: CallError, now: float) -> bool:
        """Append the ``error`` frame; returns whether it came first."""
        return self._finish(
            Step.FAIL, Ending(State.FAILED, error=error), lambda seq: self._writer.error(error, seq, now)
        )

    def cancel(self, reason: CancelReason, times: CancelTimes, now: float) -> bool:
        """Append the ``cancelled`` frame; returns whether it came first."""
        return self._finish(
            Step.CANCEL,
            Ending(State.CANCELLED, reason=reason),
            lambda seq: self._writer.cancelled(reason, times, seq, now),
        )

    def _finish(self, step: Step, ending: Ending, write: Callable[[int], bytes]) -> bool:
        with self._finish_lock:
            if self.ending is not None:
                self.late_ends += 1
                return False
            line = write(self._call.next_seq)
            self._call.advance(step)
            self.ending = ending
            self._append(line)
        return True

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self.size += len(line)
        self._ends.append(self.size)
        self._call.next_seq += 1
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for wake in waiting:
            wake()

    # -- reading -------------------------------------------------------------------------------------

    def wake_on_append(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once, at the next frame."""
        self._waiting += (wake,)

    def read(self, after: int, max_bytes: int) -> list[bytes]:
        """Return the frames that follow number ``after``: all of them, or the first ``max_bytes`` worth
        (and at least one).

        Raises:
            ReplayTruncated: The next frame is no longer kept.
        """
        start = after + 1 - self.first_seq
        if start < 0:
            raise ReplayTruncated(
                f"frames before {self.first_seq} are gone; continue with after={self.first_seq - 1}",
                first_seq=self.first_seq,
            )
        if start >= len(self._ends):
            return []
        limit = self.position(after) + max_bytes
        stop = None if limit >= self.size else max(start + 1, bisect_right(self._ends, limit, start))
        return self._unpacked(start, stop) if self._block else self._lines[start:stop]

    def position(self, seq: int) -> int:
        """Return how many bytes the frames up to number ``seq`` have, from the first ever."""
        if seq >= self._call.next_seq - 1:
            return self.size
        index = seq - self.first_seq
        return self._ends[index] if index >= 0 else self._begin

    def trim(self, keep_bytes: int) -> None:
        """Forget the oldest frames until at most ``keep_bytes`` are kept."""
        if self.kept_size <= keep_bytes:
            return
        drop = bisect_left(self._ends, self.size - keep_bytes) + 1
        begin = self._ends[drop - 1]
        self._block = self._block[begin - self._begin :]
        self._begin = begin
        del self._lines[:drop]
        del self._ends[:drop]
        self.first_seq += drop

    def pack(self) -> None:
        """Keep the frames as one block, and nothing to write with; for a log that has ended and is kept in
        case somebody asks.

        An object per frame would cost half as much memory again, and every full garbage collection would
        look at each of them.
        """
        self._block += b"".join(self._lines)
        self._lines = _PACKED
        self._writer, self._finish_lock = _IDLE_WRITER, _LATE_LOCK

    def _unpacked(self, start: int, stop: int | None) -> list[bytes]:
        cuts = [end - self._begin for end in self._ends[start:stop]]
        first = self._ends[start - 1] - self._begin if start else 0
        return [self._block[begin:end] for begin, end in zip([first, *cuts], cuts, strict=False)]


# What every packed log shares: it has no lines, writes nothing, and only counts ends that come late.
_PACKED: list[bytes] = []
_IDLE_WRITER = FrameWriter(WireForm.V2, "", "", "")
_LATE_LOCK = Lock()
