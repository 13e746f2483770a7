"""The machine and the log: every step the table allows, every one it refuses, and what readers see."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest

from penstock.errors import CallError, ErrorCode, LocalProtocolError, RemoteProtocolError, ReplayTruncated
from penstock.protocol.call import Call, CallLog, State, Step
from penstock.protocol.messages import CancelReason, CancelTimes, Frame, FrameWriter, WireForm, decode_frame

NOW = 1704067200.0
ENDS = {Step.COMPLETE: State.COMPLETED, Step.FAIL: State.FAILED, Step.CANCEL: State.CANCELLED}

Setter = Callable[[CallLog], bool]
SETTERS: dict[str, Setter] = {
    "completed": lambda log: log.complete(None, {}, NOW, has_answer=False),
    "error": lambda log: log.fail(CallError("no"), NOW),
    "cancelled": lambda log: log.cancel(CancelReason.CALLER, CancelTimes(NOW), NOW),
}


def new_log() -> CallLog:
    return CallLog(FrameWriter(WireForm.V2, "predict", "t1", "0" * 32), NOW)


def frames(log: CallLog, after: int = -1) -> list[Frame]:
    return [decode_frame(line) for line in log.read(after, 1 << 30)]


def frame(status: str, seq: int | None = None) -> Frame:
    return Frame(type="task", status=status, seq=seq)


# -- the machine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [State.ACCEPTED, State.STREAMING])
@pytest.mark.parametrize("step", Step)
def test_a_call_that_goes_on_may_take_any_step(begin: State, step: Step) -> None:
    call = Call()
    call.state = begin
    call.advance(step)
    expected = {Step.ITEM: State.STREAMING, Step.NOTE: begin, **ENDS}[step]
    assert call.state is expected


@pytest.mark.parametrize("end", ENDS.values())
@pytest.mark.parametrize("step", Step)
def test_nothing_follows_an_end_and_a_refused_step_changes_nothing(end: State, step: Step) -> None:
    call = Call()
    call.state = end
    with pytest.raises(LocalProtocolError, match=step.name.lower()):
        call.advance(step)
    assert call.state is end


def test_labels_are_the_statuses_of_the_wire_and_only_ends_are_terminal() -> None:
    assert [state.label for state in State] == ["accepted", "streaming", "completed", "error", "cancelled"]
    assert [state for state in State if state.terminal] == list(ENDS.values())


# -- the machine on the other side ---------------------------------------------------------------------


def test_an_observer_follows_a_whole_call() -> None:
    call = Call()
    states = []
    for seq, status in enumerate(("accepted", "queued", "progress", "streaming", "progress", "completed")):
        call.observe(frame(status, seq))
        states.append(call.state.label)
    assert states == ["accepted", "accepted", "accepted", "streaming", "streaming", "completed"]
    assert call.next_seq == 6


@pytest.mark.parametrize(
    ("seen", "bad"),
    [
        ([], frame("streaming", 0)),
        ([], frame("completed", 0)),
        ([], frame("accepted", 1)),
        ([frame("accepted", 0)], frame("accepted", 1)),
        ([frame("accepted", 0)], frame("accepted")),
        ([frame("accepted", 0)], frame("streaming", 0)),
        ([frame("accepted", 0)], frame("streaming", 2)),
        ([frame("accepted", 0), frame("error", 1)], frame("streaming", 2)),
        ([frame("accepted", 0), frame("error", 1)], frame("completed", 2)),
        ([frame("accepted", 0), frame("error", 1)], frame("never heard of it", 2)),
    ],
)
def test_what_a_server_may_not_say_a_client_refuses(seen: list[Frame], bad: Frame) -> None:
    call = Call()
    for good in seen:
        call.observe(good)
    before = (call.state, call.next_seq)
    with pytest.raises(RemoteProtocolError):
        call.observe(bad)
    assert (call.state, call.next_seq) == before


def test_a_status_of_a_later_version_counts_as_a_note() -> None:
    call = Call()
    call.observe(frame("accepted", 0))
    call.observe(frame("thinking", 1))
    assert (call.state, call.next_seq) == (State.ACCEPTED, 2)


def test_an_answer_stands_alone_with_any_number() -> None:
    call = Call()
    call.observe(frame("completed", 7), answer=True)
    assert call.state is State.COMPLETED
    with pytest.raises(RemoteProtocolError):
        call.observe(frame("completed", 8), answer=True)


def test_resume_expects_the_frame_behind_the_cursor() -> None:
    call = Call()
    call.resume(4)
    with pytest.raises(RemoteProtocolError):
        call.observe(frame("streaming", 4))
    call.observe(frame("streaming", 5))
    assert (call.state, call.next_seq) == (State.STREAMING, 6)


# -- the log: how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), list(itertools.product(SETTERS, repeat=2)))
def test_the_first_end_stays_whatever_comes_second(first: str, second: str) -> None:
    log = new_log()
    log.item({"n": 1}, NOW)
    assert SETTERS[first](log) is True
    ending, lines = log.ending, log.read(-1, 1 << 30)
    assert SETTERS[second](log) is False
    assert (log.ending, log.read(-1, 1 << 30), log.late_ends) == (ending, lines, 1)
    assert [f.status for f in frames(log)] == ["accepted", "streaming", first]
    assert log.state.label == first


@pytest.mark.parametrize("end", SETTERS)
def test_after_the_end_neither_items_nor_notes_are_taken(end: str) -> None:
    log = new_log()
    SETTERS[end](log)
    lines = log.read(-1, 1 << 30)
    with pytest.raises(LocalProtocolError):
        log.item({"n": 1}, NOW)
    with pytest.raises(LocalProtocolError):
        log.note("progress", {"fraction": 0.5}, NOW)
    assert log.read(-1, 1 << 30) == lines


def test_two_threads_racing_to_end_a_call_have_one_winner() -> None:
    setters = list(itertools.permutations(SETTERS.values(), 2))
    races = 10_000
    logs = [new_log() for _ in range(races)]
    won: list[list[bool]] = [[], []]
    gate = threading.Barrier(2)

    def run(side: int) -> None:
        gate.wait()
        for index, log in enumerate(logs):
            won[side].append(setters[index % len(setters)][side](log))

    threads = [threading.Thread(target=run, args=(side,)) for side in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a != b for a, b in zip(*won, strict=True))
    assert all(log.late_ends == 1 and len(log.read(-1, 1 << 30)) == 2 for log in logs)


def test_ending_tells_a_program_how_the_call_ended() -> None:
    failed, cancelled, completed = new_log(), new_log(), new_log()
    error = CallError("busy", ErrorCode.UNAVAILABLE)
    failed.fail(error, NOW)
    cancelled.cancel(CancelReason.DISCONNECT, CancelTimes(NOW), NOW)
    completed.complete({"a": 1}, {}, NOW, has_answer=True)
    assert failed.ending is not None
    assert failed.ending.error is error
    assert cancelled.ending is not None
    assert cancelled.ending.reason is CancelReason.DISCONNECT
    assert completed.ending == (State.COMPLETED, None, None)


# -- the log: what is refused changes nothing ----------------------------------------------------------


def test_an_item_that_is_no_json_leaves_no_trace() -> None:
    log = new_log()
    with pytest.raises(CallError) as refused:
        log.item({"x": float("nan")}, NOW)
    assert refused.value.code is ErrorCode.INVALID_OUTPUT
    assert (log.state, log.next_seq, len(log.read(-1, 1 << 30))) == (State.ACCEPTED, 1, 1)


def test_an_answer_that_is_no_json_does_not_end_the_call() -> None:
    log = new_log()
    with pytest.raises(CallError):
        log.complete(b"bytes", {}, NOW, has_answer=True)
    assert (log.ending, log.state) == (None, State.ACCEPTED)
    assert log.fail(CallError("no"), NOW)


@pytest.mark.parametrize(
    "error",
    [
        CallError("half a \ud83d"),
        CallError(ValueError("an exception as text")),  # type: ignore[arg-type]
        CallError("odd", details=[{"x": float("nan")}]),
        CallError("odd", details=[{"x": object()}]),
        CallError("odd", details=[{"x": "\ud800"}]),
    ],
    ids=["lone surrogate", "no text", "nan", "no json", "surrogate in details"],
)
def test_an_error_always_reaches_its_caller(error: CallError) -> None:
    log = new_log()
    assert log.fail(error, NOW)
    (last,) = frames(log, after=0)
    assert last.status == "error"
    assert isinstance(last.error, str)


# -- the log: reading and trimming ---------------------------------------------------------------------


def filled(items: int) -> CallLog:
    log = new_log()
    for n in range(items):
        log.item({"n": n}, NOW)
    return log


def test_read_gives_the_suffix_behind_the_cursor() -> None:
    log = filled(5)
    everything = log.read(-1, 1 << 30)
    assert [f.seq for f in frames(log)] == list(range(6))
    for after in range(-1, 6):
        assert log.read(after, 1 << 30) == everything[after + 1 :]
    assert log.read(99, 1 << 30) == []


def test_read_stops_at_the_byte_bound_but_always_gives_one_frame() -> None:
    log = filled(5)
    everything = log.read(-1, 1 << 30)
    assert log.read(-1, 1) == everything[:1]
    assert log.read(0, len(everything[1]) + len(everything[2])) == everything[1:3]
    assert log.read(0, len(everything[1]) + len(everything[2]) - 1) == everything[1:2]


def test_trimmed_frames_are_named_not_skipped() -> None:
    log = filled(9)
    size = log.size
    log.trim(size // 2)
    assert 0 < log.first_seq < log.next_seq
    assert log.kept_size <= size // 2
    with pytest.raises(ReplayTruncated, match=f"after={log.first_seq - 1}") as gone:
        log.read(log.first_seq - 2, 1 << 30)
    assert gone.value.first_seq == log.first_seq
    assert [f.seq for f in frames(log, log.first_seq - 1)] == list(range(log.first_seq, log.next_seq))
    assert log.size == size


def test_trim_drops_no_more_than_it_must() -> None:
    log = filled(9)
    last_two = sum(map(len, log.read(7, 1 << 30)))
    log.trim(last_two)
    assert log.first_seq == log.next_seq - 2
    log.trim(last_two - 1)
    assert log.first_seq == log.next_seq - 1


def test_a_log_trimmed_to_nothing_still_knows_its_numbers() -> None:
    log = filled(3)
    SETTERS["completed"](log)
    size, following = log.size, log.next_seq
    log.trim(0)
    assert (log.kept_size, log.first_seq, log.next_seq, log.size) == (0, following, following, size)
    assert log.position(following - 1) == size
    assert log.read(following - 1, 1 << 30) == []
    with pytest.raises(ReplayTruncated):
        log.read(-1, 1 << 30)


def test_position_counts_bytes_from_the_first_frame_ever() -> None:
    log = filled(4)
    ends = list(itertools.accumulate(map(len, log.read(-1, 1 << 30))))
    assert [log.position(seq) for seq in range(5)] == ends
    assert log.position(-1) == 0
    log.trim(log.size - 1)
    assert log.position(1) == ends[1]


def test_a_waker_is_called_once_at_the_next_frame_whatever_it_is() -> None:
    log = new_log()
    woken: list[str] = []
    log.wake_on_append(lambda: woken.append("a"))
    log.wake_on_append(lambda: woken.append("b"))
    log.item(1, NOW)
    log.item(2, NOW)
    assert woken == ["a", "b"]
    log.wake_on_append(lambda: woken.append("c"))
    SETTERS["error"](log)
    assert woken == ["a", "b", "c"]


def test_a_waker_may_ask_to_be_woken_again() -> None:
    log = new_log()
    seen: list[int] = []

    def wake() -> None:
        seen.append(log.next_seq)
        log.wake_on_append(wake)

    log.wake_on_append(wake)
    log.item(1, NOW)
    log.item(2, NOW)
    assert seen == [2, 3]
