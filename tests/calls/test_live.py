"""A live call: what cuts it short, how that shows, and what is known of it afterwards."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import anyio
import pytest

from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_ended
from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import State
from penstock.protocol.events import EngineReport, EventMetrics
from penstock.protocol.messages import CancelReason, CancelTimes, Frame, OnDisconnect, decode_frame
from penstock.testing import FakeClock
from penstock.testing.clock import EPOCH

MakeLive = Callable[..., Live]


def last(live: Live) -> Frame:
    return decode_frame(live.log.read(live.log.next_seq - 2, 1)[0])


def statuses(live: Live) -> list[str]:
    return [decode_frame(line).status for line in live.log.read(-1, 1 << 30)]


# -- reasons -------------------------------------------------------------------------------------------

ENDINGS = {
    CancelReason.CALLER: ("cancelled", None),
    CancelReason.DISCONNECT: ("cancelled", None),
    CancelReason.DEADLINE: ("error", "deadline_exceeded"),
    CancelReason.DRAIN: ("error", "unavailable"),
    CancelReason.RUNNER_LOST: ("error", "unavailable"),
}


@pytest.mark.parametrize("reason", CancelReason)
def test_each_reason_has_its_terminal_frame(make_live: MakeLive, reason: CancelReason) -> None:
    live = make_live(timeout_s=9.0)
    assert live.cancel(reason) == "cancelled"
    live.end_cut()
    status, code = ENDINGS[reason]
    frame = last(live)
    assert (frame.status, frame.code) == (status, code)
    assert frame.reason == (reason.value if status == "cancelled" else None)
    assert frame.retryable is (None if code is None else True)
    record = live.record()
    assert record.cancel is not None
    assert record.cancel["reason"] == reason.value


def test_the_first_reason_stays_and_is_told_once(make_live: MakeLive) -> None:
    live = make_live()
    felt: list[CancelReason] = []
    live.on_cut(felt.append)
    outcomes = [live.cancel(CancelReason.DISCONNECT), live.cancel(CancelReason.CALLER)]
    assert outcomes == ["cancelled", "cancelled"]
    live.end_cut()
    assert felt == [CancelReason.DISCONNECT]
    assert last(live).reason == "disconnect"


def test_who_listens_after_the_cancel_is_told_at_once(make_live: MakeLive) -> None:
    live = make_live()
    live.cancel(CancelReason.CALLER)
    felt: list[CancelReason] = []
    live.on_cut(felt.append)
    assert felt == [CancelReason.CALLER]


@pytest.mark.parametrize("end", ["complete", "fail", "cut"])
def test_cancelling_an_ended_call_says_so_and_tells_nobody(make_live: MakeLive, end: str) -> None:
    live = make_live()
    felt: list[CancelReason] = []
    live.on_cut(felt.append)
    if end == "complete":
        live.complete(has_answer=False)
    elif end == "fail":
        live.fail(CallError("no"))
    else:
        live.cancel(CancelReason.CALLER)
        live.end_cut()
        felt.clear()
    lines = live.log.read(-1, 1 << 30)
    assert live.cancel(CancelReason.CALLER) == "already_finished"
    assert live.log.read(-1, 1 << 30) == lines
    assert felt == []


@pytest.mark.parametrize("how", ["complete", "fail"])
def test_once_cancelled_no_other_end_is_possible(make_live: MakeLive, how: str) -> None:
    live = make_live()
    live.cancel(CancelReason.CALLER)
    ended = live.complete("too late", has_answer=True) if how == "complete" else live.fail(CallError("late"))
    assert ended
    assert live.state is State.CANCELLED
    assert live.complete(has_answer=False) is False


def test_a_cancelled_frame_says_when_it_was_asked_for_and_felt(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live()
    clock.advance(1)
    live.cancel(CancelReason.CALLER)
    clock.advance(0.25)
    live.mark_delivered()
    clock.advance(1)
    live.mark_delivered()
    live.end_cut()
    cancel = last(live).cancel
    assert cancel is not None
    assert (cancel.requested_at, cancel.delivered_at) == (EPOCH + 1, EPOCH + 1.25)


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_the_stages_of_a_cancel_are_in_order_whatever_the_wall_clock_does(
    make_live: MakeLive, clock: FakeClock, jump: float
) -> None:
    live = make_live()
    live.cancel(CancelReason.CALLER)
    for mark in (live.mark_delivered, live.mark_confirmed, live.mark_acknowledged, live.mark_stopped):
        clock.jump_wall(jump)
        clock.advance(0.5)
        mark()
    assert live.cut is not None
    assert live.cut.times() == CancelTimes(EPOCH, EPOCH + 0.5, EPOCH + 1.5, EPOCH + 1, EPOCH + 2)


def test_a_stage_is_reached_with_the_next_at_the_latest(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live()
    live.cancel(CancelReason.CALLER)
    clock.advance(1)
    live.mark_confirmed(0.25)  # as a thread has measured it
    clock.advance(1)
    live.mark_stopped()
    live.mark_delivered()
    assert live.cut is not None
    assert live.cut.times() == CancelTimes(EPOCH, EPOCH + 0.25, EPOCH + 2, EPOCH + 0.25, EPOCH + 2)


# -- deadline ------------------------------------------------------------------------------------------


def test_a_deadline_cuts_the_call_and_names_its_budget(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live(timeout_s=30.0)
    clock.advance(29.9)
    assert live.remaining() == pytest.approx(0.1)
    assert live.cancel_reason is None
    clock.advance(0.2)
    assert live.remaining() == 0.0
    assert live.cancel_reason is CancelReason.DEADLINE
    live.end_cut()
    frame = last(live)
    assert frame.error == "predict took longer than its total budget of 30 s"
    assert list(frame.details) == [{"budget": "total", "limit_s": 30.0}]


@pytest.mark.parametrize("jump", [-100_000.0, 100_000.0])
def test_a_jump_of_the_wall_clock_moves_no_deadline(
    make_live: MakeLive, clock: FakeClock, jump: float
) -> None:
    live = make_live(timeout_s=30.0)
    clock.jump_wall(jump)
    assert live.remaining() == 30.0
    clock.advance(29.0)
    assert live.cancel_reason is None
    clock.advance(2.0)
    assert live.cancel_reason is CancelReason.DEADLINE


def test_a_call_without_a_timeout_has_no_deadline_and_no_timer(make_live: MakeLive, clock: FakeClock) -> None:
    assert make_live().remaining() is None
    assert clock.pending == 0


@pytest.mark.parametrize("cancelled", [False, True])
def test_an_ended_call_leaves_no_timer(make_live: MakeLive, clock: FakeClock, cancelled: bool) -> None:
    live = make_live(timeout_s=30.0)
    if cancelled:
        live.cancel(CancelReason.CALLER)
    live.complete(has_answer=False)
    live.mark_stopped()
    assert clock.pending == 0
    clock.advance(100)
    assert live.cancel_reason is (CancelReason.CALLER if cancelled else None)


def test_a_deadline_that_another_process_keeps_has_no_size_here(make_live: MakeLive) -> None:
    live = make_live()
    live.cancel(CancelReason.DEADLINE)
    live.end_cut()
    assert live.fault is not None
    assert live.fault.endswith("total budget")


# -- code that does not stop ---------------------------------------------------------------------------


def test_a_call_that_does_not_stop_is_answered_after_its_grace_and_reported(
    make_live: MakeLive, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    live = make_live(cancel_grace_s=5.0)
    live.cancel(CancelReason.CALLER)
    clock.advance(4.9)
    assert (live.stuck, live.ending) == (False, None)
    with caplog.at_level(logging.WARNING):
        clock.advance(0.2)
    assert live.stuck
    assert live.state is State.CANCELLED
    assert live.request_id in caplog.text
    record = live.record()
    assert record.cancel is not None
    assert record.cancel["stuck"] is True
    live.mark_stopped()
    assert not live.stuck


def test_a_call_that_stops_in_time_is_not_stuck(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live()
    live.cancel(CancelReason.CALLER)
    live.end_cut()
    live.mark_stopped()
    clock.advance(60)
    assert not live.stuck
    assert live.log.late_ends == 0


# -- on_disconnect -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_cancel_acts_when_the_last_reader_goes(make_live: MakeLive) -> None:
    live = make_live()
    async with live.reader():
        async with live.reader():
            pass
        assert live.cancel_reason is None
    assert live.cancel_reason is CancelReason.DISCONNECT


@pytest.mark.anyio
async def test_continue_lets_the_call_run_on(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live(on_disconnect=OnDisconnect(None))
    async with live.reader():
        pass
    clock.advance(10_000)
    assert live.cancel_reason is None


@pytest.mark.anyio
async def test_grace_gives_a_reader_time_to_come_back(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live(on_disconnect=OnDisconnect(30.0))
    async with live.reader():
        pass
    clock.advance(20)
    async with live.reader():
        clock.advance(20)  # the first grace would be over; the reader is back
        assert live.cancel_reason is None
    clock.advance(29)  # a new grace began when it left again
    assert live.cancel_reason is None
    clock.advance(2)
    assert live.cancel_reason is CancelReason.DISCONNECT


@pytest.mark.anyio
async def test_a_reader_that_leaves_after_the_end_changes_nothing(make_live: MakeLive) -> None:
    live = make_live()
    async with live.reader():
        live.complete(has_answer=False)
    assert live.cancel_reason is None
    assert live.state is State.COMPLETED


# -- notes, metrics, records ---------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
def test_notes_are_sent_only_if_asked_for_and_never_after_the_end(make_live: MakeLive, asked: bool) -> None:
    live = make_live(notes=asked)
    live.note("queued", {"position": 1})
    live.complete(has_answer=False)
    live.note("progress", {"fraction": 1.0})
    assert statuses(live) == (["accepted", "queued", "completed"] if asked else ["accepted", "completed"])


@pytest.mark.anyio
async def test_metrics_count_items_and_tell_the_times(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live(notes=True)
    clock.advance(0.5)
    live.mark_started()
    clock.advance(0.25)
    live.note("progress", {"fraction": 0.5})
    live.log.item(1, clock.wall())
    await live.breathe()
    clock.advance(1)
    live.log.item(2, clock.wall())
    await live.breathe()
    live.complete(has_answer=False)
    expected = {"queue_ms": 500.0, "ttft_ms": 750.0, "total_ms": 1750.0, "items": 2}
    assert last(live).metrics == expected
    clock.advance(100)
    assert live.record().metrics == expected


def test_an_engines_measurements_join_the_calls_own(make_live: MakeLive) -> None:
    live = make_live()
    first = EventMetrics(ttft_ms=1.0, throughput_tps=5.0, peak_mem_mb=1)
    live.report(EngineReport(metrics=first, finish_reason="stop"))
    live.report(EngineReport(metrics=EventMetrics(ttft_ms=2.0, throughput_tps=6.0, peak_mem_mb=1)))
    live.complete(has_answer=False)
    metrics = last(live).metrics
    assert metrics is not None
    assert (metrics["ttft_ms"], metrics["throughput_tps"], metrics["items"]) == (2.0, 6.0, 0)
    assert metrics["finish_reason"] == "stop"


def test_a_record_tells_the_whole_story(make_live: MakeLive, clock: FakeClock) -> None:
    live = make_live(task_id="mine")
    assert live.record().status == "accepted"
    clock.advance(1)
    live.mark_started()
    live.log.item({"n": 1}, clock.wall())
    assert live.record().status == "streaming"
    clock.advance(1)
    live.complete({"n": [1]}, has_answer=True)
    record = live.record()
    assert (record.task_id, record.request_id, record.command) == ("mine", live.request_id, "predict")
    assert (record.accepted_at, record.started_at, record.finished_at) == (EPOCH, EPOCH + 1, EPOCH + 2)
    assert (record.status, record.first_seq, record.next_seq) == ("completed", 0, 3)
    assert json.loads(bytes(record.result or b"")) == {"n": [1]}
    assert (record.error, record.cancel) == (None, None)


def test_a_failed_calls_record_carries_its_error(make_live: MakeLive) -> None:
    live = make_live()
    live.fail(CallError("no more", ErrorCode.UPSTREAM_FAILED))
    record = live.record()
    assert (record.status, record.error, record.code) == ("error", "no more", "upstream_failed")
    assert record.result is None


@pytest.mark.parametrize("notes", [True, False])
def test_the_result_of_a_stream_is_its_last_item(make_live: MakeLive, notes: bool) -> None:
    live = make_live(notes=notes)
    live.log.item({"n": 1}, 0)
    live.log.item({"n": 2}, 0)
    live.note("progress", {"fraction": 1.0, "message": "almost"})
    live.complete(has_answer=False)
    assert json.loads(bytes(live.record().result or b"")) == {"n": 2}


def test_a_forgotten_log_has_no_result_but_a_record(make_live: MakeLive) -> None:
    live = make_live()
    live.complete("x", has_answer=True)
    live.log.trim(0)
    assert live.record().result is None
    assert live.record().status == "completed"


def test_an_answer_that_is_no_json_leaves_the_call_to_be_failed(make_live: MakeLive) -> None:
    live = make_live()
    with pytest.raises(CallError):
        live.complete(object(), has_answer=True)
    assert live.ending is None
    assert live.fail(CallError("so be it"))


@pytest.mark.anyio
async def test_waiting_for_the_end_before_and_after_it(make_live: MakeLive) -> None:
    live = make_live()
    tasks = TaskOwner()
    waiting = tasks.start(wait_ended(live))
    await anyio.wait_all_tasks_blocked()
    assert not waiting.done()
    live.complete(has_answer=False)
    with anyio.fail_after(5):
        await waiting
        await wait_ended(live)


@pytest.mark.parametrize("name", sorted(vars(CallLimits())))
def test_every_limit_is_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        CallLimits(**{name: 0})
