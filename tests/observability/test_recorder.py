"""The recorder: each thing it is told of, and what it then shows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.scripted import Run, everything
from penstock.errors import CallError, ErrorCode
from penstock.observability.recorder import (
    CALL_S,
    FIRST_S,
    GAP_S,
    TOKENS,
    WAIT_S,
    Histogram,
    Recorder,
    Tally,
)
from penstock.protocol.events import EngineReport, EventUsage
from penstock.protocol.messages import CancelReason

pytestmark = pytest.mark.anyio


@pytest.fixture
def run() -> Run:
    return Run(("predict", "add"), ("tale",))


def values(histogram: Histogram) -> tuple[int, float]:
    """Return how many values there were, and their sum."""
    return sum(histogram.counts), histogram.total


@pytest.mark.parametrize("bounds", [CALL_S, FIRST_S, GAP_S, TOKENS, WAIT_S])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
    assert bounds[0] > 0


@given(st.lists(st.floats(0, 1000)), st.sampled_from([CALL_S, FIRST_S, GAP_S, WAIT_S]))
def test_a_bucket_counts_what_is_at_most_its_bound(given: list[float], bounds: tuple[float, ...]) -> None:
    histogram = Histogram(bounds)
    for value in given:
        histogram.observe(value)
    for index, bound in enumerate((*bounds, math.inf)):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in given)
    assert histogram.total == pytest.approx(sum(given))


def test_a_call_is_in_flight_until_its_terminal_frame(run: Run) -> None:
    tally = run.recorder.commands["predict"]
    first, second = run.accept(), run.accept()
    assert tally.in_flight == 2
    first.mark_started()
    first.complete(1, has_answer=True)
    assert tally.in_flight == 1
    second.cancel(CancelReason.CALLER)
    assert tally.in_flight == 1
    second.end_cut()
    assert tally.in_flight == 0


def test_the_wait_for_a_permit_ends_when_the_code_starts(run: Run) -> None:
    live = run.accept()
    run.clock.advance(0.75)
    assert values(run.recorder.commands["predict"].queue) == (0, 0.0)
    live.mark_started()
    assert values(run.recorder.commands["predict"].queue) == (1, 0.75)


async def test_the_first_item_and_each_gap_behind_it(run: Run) -> None:
    tally, live = run.recorder.commands["predict"], run.start()
    await run.item(live, 0.5)
    assert values(tally.first_item) == (1, 0.5)
    assert values(tally.gap) == (0, 0.0)
    await run.item(live, 0.25)
    await run.item(live, 0.125)
    assert values(tally.first_item) == (1, 0.5)
    assert values(tally.gap) == (2, 0.375)


async def test_items_and_the_duration_are_counted_at_the_end(run: Run) -> None:
    tally, live = run.recorder.commands["predict"], run.start()
    for _ in range(3):
        await run.item(live, 0.5)
    assert tally.items == 0
    live.complete(has_answer=False)
    assert tally.items == 3
    assert values(tally.duration) == (1, 1.5)


def test_calls_that_end_are_told_apart(run: Run) -> None:
    tally = run.recorder.commands["add"]
    assert tally.outcomes == {("completed", ""): 0}  # there from the start: a rate needs a first value
    run.start("add").complete(1, has_answer=True)
    for code in (ErrorCode.COMMAND_FAILED, ErrorCode.COMMAND_FAILED, ErrorCode.INVALID_OUTPUT):
        run.start("add").fail(CallError("no", code))
    for reason in CancelReason:
        live = run.start("add")
        live.cancel(reason)
        live.end_cut()
    assert tally.outcomes == {
        ("completed", ""): 1,
        ("error", "command_failed"): 2,
        ("error", "invalid_output"): 1,
        ("cancelled", "caller"): 1,
        ("cancelled", "disconnect"): 1,
        ("error", "deadline_exceeded"): 1,
        ("error", "unavailable"): 2,  # the server drains, or has lost who ran it
    }


@pytest.mark.parametrize("reason", CancelReason)
def test_a_cancel_is_followed_by_its_cause(run: Run, reason: CancelReason) -> None:
    tally, live = run.recorder.commands["predict"], run.start()
    live.cancel(reason)
    live.cancel(CancelReason.CALLER)  # the first counts
    assert (tally.cancelled, list(tally.cancels), tally.cancels[reason.value].count) == (1, [reason.value], 1)
    run.clock.advance(0.25)
    live.mark_delivered()
    live.mark_delivered()
    cancels = tally.cancels[reason.value]
    assert values(cancels.delivered) == (1, 0.25)
    assert values(cancels.stopped) == (0, 0.0)
    run.clock.advance(0.125)
    live.mark_confirmed()
    live.mark_confirmed()
    assert (values(cancels.confirmed), values(cancels.acknowledged)) == ((1, 0.375), (0, 0.0))
    run.clock.advance(0.125)
    live.mark_acknowledged()
    assert values(cancels.acknowledged) == (1, 0.5)
    live.end_cut()
    assert tally.cancelled == 1
    live.mark_stopped()
    assert values(cancels.stopped) == (1, 0.5)
    assert values(cancels.acknowledged) == (1, 0.5)
    assert tally.cancelled == 0


def test_work_that_ignores_its_cancel_is_stuck_until_it_stops(run: Run) -> None:
    tally = run.recorder.commands["predict"]
    live = run.start(grace_s=2.0)
    live.cancel(CancelReason.CALLER)
    run.clock.advance(1.9)
    assert (tally.in_flight, tally.cancelled, len(tally.stuck)) == (1, 1, 0)
    run.clock.advance(0.1)
    assert (tally.in_flight, tally.cancelled, len(tally.stuck)) == (0, 1, 1)
    run.clock.advance(60)
    live.mark_stopped()
    assert (tally.in_flight, tally.cancelled, len(tally.stuck)) == (0, 0, 0)
    assert values(tally.cancels["caller"].stopped) == (1, 62.0)


def test_a_call_that_was_never_cancelled_leaves_no_trace_of_one(run: Run) -> None:
    tally, live = run.recorder.commands["predict"], run.start()
    live.complete(1, has_answer=True)
    live.mark_stopped()
    assert (tally.cancelled, dict(tally.cancels)) == (0, {})


def test_refusals_are_counted_by_what_was_asked_for_and_code(run: Run) -> None:
    for name in ("predict", "predict", "made up", "also made up"):
        run.recorder.refused(CallError("no", ErrorCode.NOT_FOUND), name, is_workflow=False)
    run.recorder.refused(CallError("no", ErrorCode.RESOURCE_EXHAUSTED), "predict", is_workflow=True)
    assert run.recorder.commands["predict"].refusals == {"not_found": 2}
    assert run.recorder.unserved.refusals == {"not_found": 2, "resource_exhausted": 1}


def test_tokens_are_counted_once_a_call_has_ended(run: Run) -> None:
    tally, live = run.recorder.commands["predict"], run.start()
    for count in (1, 5):
        live.report(EngineReport(usage=EventUsage(prompt_tokens=100, completion_tokens=count)))
    assert values(tally.tokens["input"]) == (0, 0)
    live.complete(has_answer=False)
    assert (values(tally.tokens["input"]), values(tally.tokens["output"])) == ((1, 100), (1, 5))
    run.start().complete(has_answer=False)
    assert values(tally.tokens["output"]) == (1, 5)


def test_the_bounds_have_those_of_the_conventions_for_generative_ai() -> None:
    """OpenTelemetry's semantic conventions, metrics of generative AI: the advised bucket boundaries."""
    duration = {0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
    first = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0}
    each = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5}
    tokens = {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
    assert (duration - set(CALL_S), first - set(FIRST_S), each - set(GAP_S)) == (set(), set(), set())
    assert tokens == set(TOKENS)


def test_a_workflow_and_a_command_of_one_name_are_two() -> None:
    run = Run(("tale",), ("tale",))
    run.start("tale")
    run.start(workflow="tale").complete(1, has_answer=True)
    command, workflow = run.recorder.commands["tale"], run.recorder.workflows["tale"]
    assert (command.in_flight, command.outcomes["completed", ""]) == (1, 0)
    assert (workflow.in_flight, workflow.outcomes["completed", ""]) == (0, 1)


def test_what_is_not_served_has_no_tally(run: Run) -> None:
    for live in (run.start("made up"), run.start(workflow="made up")):
        live.cancel(CancelReason.CALLER)
        live.mark_delivered()
        live.end_cut()
        live.mark_stopped()
    assert list(run.recorder.commands) == ["predict", "add"]
    assert list(run.recorder.workflows) == ["tale"]
    assert all(_untouched(tally) for tally in run.recorder.commands.values())


def _untouched(tally: Tally) -> bool:
    return not any((tally.in_flight, tally.items, sum(tally.outcomes.values()), tally.cancels))


def test_nothing_is_shown_before_something_is_served() -> None:
    assert Recorder().commands == {}


async def test_the_whole_run_comes_out_even() -> None:
    recorder = (await everything()).recorder
    tally = recorder.commands["predict"]
    assert sum(tally.outcomes.values()) == 4
    assert (tally.in_flight, tally.cancelled, len(tally.stuck)) == (1, 1, 1)
    assert sum(recorder.workflows["tale"].outcomes.values()) == 1


def test_the_turns_of_the_event_loop_are_counted(run: Run) -> None:
    run.recorder.turned(0.25)
    run.recorder.turned(0.5)
    assert values(run.recorder.loop) == (2, 0.75)
