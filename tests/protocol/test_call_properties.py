"""Two sides of one call and a lagging link between them: whatever happens, P1, P2 and P3 hold.

A ``CallLog`` writes; frames travel in order but late; a ``Call`` on the other side observes them.  Readers
with cursors of their own come, read in bites, and are overrun by trims.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.errors import CallError, LocalProtocolError, ReplayTruncated
from penstock.protocol.call import Call, CallLog, State
from penstock.protocol.messages import CancelReason, CancelTimes, FrameWriter, WireForm, decode_frame

ENDS = ("completed", "error", "cancelled")


class Cursor:
    """A reader: the number of the last frame it has seen."""

    def __init__(self, after: int) -> None:
        self.after = after


class CallAndItsReaders(RuleBasedStateMachine):
    readers = Bundle("readers")

    @initialize(form=st.sampled_from(WireForm))
    def start(self, form: WireForm) -> None:
        self.now = 1704067200.0
        self.log = CallLog(FrameWriter(form, "predict", "t", "0" * 32), self.now)
        self.written = self.log.read(-1, 1 << 30)  # the model: every frame ever written
        self.link: list[bytes] = list(self.written)
        self.observer = Call()
        self.ended_as: str | None = None
        self.late = 0
        self.latest = 0.0

    def note_new_frames(self) -> None:
        new = self.log.read(len(self.written) - 1, 1 << 30)
        self.written += new
        self.link += new

    # -- the writing side ------------------------------------------------------------------------------

    @rule(step=st.floats(-5, 5))
    def time_passes_or_jumps_back(self, step: float) -> None:
        self.now += step

    @rule(data=st.text(max_size=30) | st.integers() | st.just(float("nan")))
    def item(self, data: object) -> None:
        before = self.log.next_seq
        try:
            self.log.item({"data": data}, self.now)
        except CallError:
            assert data != data
            assert self.log.next_seq == before
        except LocalProtocolError:
            assert self.ended_as is not None
            assert self.log.next_seq == before
        else:
            assert self.ended_as is None
            self.note_new_frames()

    @rule()
    def note(self) -> None:
        try:
            self.log.note("progress", {"fraction": 0.5}, self.now)
        except LocalProtocolError:
            assert self.ended_as is not None
        else:
            assert self.ended_as is None
            self.note_new_frames()

    @precondition(lambda self: len(self.written) > 3)
    @rule(end=st.sampled_from(ENDS), racer=st.sampled_from(ENDS))
    def two_ends_race(self, end: str, racer: str) -> None:
        for setter in (end, racer):
            won = self.set_end(setter)
            assert won is (self.ended_as is None)
            if won:
                self.ended_as = setter
                self.note_new_frames()
            else:
                self.late += 1

    def set_end(self, end: str) -> bool:
        if end == "completed":
            return self.log.complete({"a": 1}, {}, self.now, has_answer=True)
        if end == "error":
            return self.log.fail(CallError("no"), self.now)
        return self.log.cancel(CancelReason.CALLER, CancelTimes(self.now), self.now)

    @rule(keep=st.integers(0, 2000))
    def trim(self, keep: int) -> None:
        self.log.trim(keep)
        assert self.log.kept_size <= keep

    @precondition(lambda self: self.ended_as is not None)
    @rule()
    def pack(self) -> None:
        self.log.pack()  # what an ended log is kept as; nobody may see a difference

    # -- the link and the other side -------------------------------------------------------------------

    @precondition(lambda self: self.link)
    @rule(count=st.integers(1, 5))
    def link_delivers(self, count: int) -> None:
        for line in self.link[:count]:
            frame = decode_frame(line)
            self.observer.observe(frame)
            assert frame.timestamp >= self.latest
            self.latest = frame.timestamp
        del self.link[:count]

    # -- readers ---------------------------------------------------------------------------------------

    @rule(target=readers, behind=st.integers(0, 30))
    def reader_comes(self, behind: int) -> Cursor:
        return Cursor(max(-1, self.log.next_seq - 1 - behind))

    @rule(cursor=readers, bite=st.integers(0, 600))
    def reader_reads(self, cursor: Cursor, bite: int) -> None:
        gone = cursor.after + 1 < self.log.first_seq
        if gone:
            with pytest.raises(ReplayTruncated) as truncated:
                self.log.read(cursor.after, bite)
            assert truncated.value.first_seq == self.log.first_seq
            cursor.after = truncated.value.first_seq - 1  # continues from where it was told it can
            return
        lines = self.log.read(cursor.after, bite)
        suffix = self.written[cursor.after + 1 :]
        assert lines == suffix[: len(lines)]
        assert bool(lines) is bool(suffix)
        assert len(lines) <= 1 or sum(map(len, lines)) <= bite
        cursor.after += len(lines)

    # -- what always holds -----------------------------------------------------------------------------

    @invariant()
    def numbers_are_gapless_and_accepted_is_first(self) -> None:
        if hasattr(self, "log"):
            frames = [decode_frame(line) for line in self.written]
            assert [frame.seq for frame in frames] == list(range(self.log.next_seq))
            assert [frame.status == "accepted" for frame in frames] == [True] + [False] * (len(frames) - 1)

    @invariant()
    def at_most_one_end_and_it_is_last(self) -> None:
        if hasattr(self, "log"):
            ends = [i for i, line in enumerate(self.written) if decode_frame(line).status in ENDS]
            assert ends == ([] if self.ended_as is None else [len(self.written) - 1])
            assert self.log.state.terminal is (self.ended_as is not None)
            assert self.log.late_ends == self.late

    @invariant()
    def the_observer_agrees_once_the_link_has_caught_up(self) -> None:
        if hasattr(self, "log") and not self.link:
            assert self.observer.state is self.log.state
            assert self.observer.next_seq == self.log.next_seq

    @invariant()
    def sizes_add_up(self) -> None:
        if hasattr(self, "log"):
            kept = self.written[self.log.first_seq :]
            assert self.log.kept_size == sum(map(len, kept))
            assert self.log.size == sum(map(len, self.written))
            assert self.log.state is not State.COMPLETED or self.ended_as == "completed"


CallAndItsReaders.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestCallAndItsReaders = CallAndItsReaders.TestCase
