"""A packed log answers every question as the log it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ReplayTruncated
from penstock.protocol.call import CallLog
from penstock.protocol.messages import FrameWriter, WireForm


def ended_log(texts: list[str]) -> CallLog:
    log = CallLog(FrameWriter(WireForm.V2, "predict", "t", "0" * 32), 1.0)
    for text in texts:
        log.item({"text": text}, 2.0)
    log.complete(None, {}, 3.0, has_answer=False)
    return log


def answers(log: CallLog, after: int, max_bytes: int) -> object:
    try:
        lines: object = log.read(after, max_bytes)
    except ReplayTruncated as error:
        lines = error.first_seq
    return lines, log.position(after), log.kept_size, log.first_seq, log.next_seq, log.size


@given(
    texts=st.lists(st.text(max_size=8), max_size=8),
    after=st.integers(-1, 12),
    max_bytes=st.integers(1, 2000),
    trims=st.lists(st.integers(0, 1500), max_size=3),
)
def test_packing_changes_no_answer(texts: list[str], after: int, max_bytes: int, trims: list[int]) -> None:
    plain, packed = ended_log(texts), ended_log(texts)
    for number, keep in enumerate([1 << 30, *trims]):
        plain.trim(keep)
        packed.trim(keep)
        if number < 2:  # a second time changes nothing either
            packed.pack()
        assert answers(packed, after, max_bytes) == answers(plain, after, max_bytes)


def test_a_packed_log_still_counts_late_ends() -> None:
    log = ended_log(["a"])
    log.pack()
    assert not log.complete(None, {}, 4.0, has_answer=False)
    assert log.late_ends == 1


def test_a_packed_log_holds_no_frame_of_its_own() -> None:
    log = ended_log(["a"])
    first = log.read(-1, 1 << 30)
    log.pack()
    again = log.read(-1, 1 << 30)
    assert again == first
    assert again[0] is not first[0]
