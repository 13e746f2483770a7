"""Budgets: each cuts the call when it is spent, and says which it was."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.calls.budgets import Budgets
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.reader import WindowedReader
from penstock.errors import ErrorCode
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Start
from penstock.testing import FakeClock


def make(clock: FakeClock, *, notes: bool = False, timeout_s: float | None = None, **budgets: float) -> Live:
    start = Start(command="predict", is_stream=True, notes=notes, timeout_s=timeout_s)
    limits = CallLimits(window=100)
    return Live(start, f"{0:032x}", LOCAL, clock=clock, limits=limits, budgets=Budgets(**budgets))


def item(live: Live) -> None:
    live.log.item({"x": 1}, live.wall())


def spent(live: Live) -> object:
    """Return which budget cut the call; None while it is not cut."""
    if live.cancel_reason is None:
        return None
    assert live.cancel_reason is CancelReason.DEADLINE
    live.end_cut()
    assert live.ending is not None
    error = live.ending.error
    assert error is not None
    assert error.code is ErrorCode.DEADLINE_EXCEEDED
    (detail,) = error.details
    assert f"{str(detail['budget']).replace('_', ' ')} budget of {detail['limit_s']:g} s" in error.message
    return detail


def test_the_queue(clock: FakeClock) -> None:
    live = make(clock, queue_s=10, first_item_s=100)
    clock.advance(9.9)
    assert spent(live) is None
    clock.advance(0.1)
    assert spent(live) == {"budget": "queue", "limit_s": 10}


def test_what_has_started_waits_no_more(clock: FakeClock) -> None:
    live = make(clock, queue_s=10)
    clock.advance(9)
    live.mark_started()
    clock.advance(1000)
    assert spent(live) is None


def test_the_first_item(clock: FakeClock) -> None:
    live = make(clock, first_item_s=3, gap_s=100)
    clock.advance(1000)
    assert spent(live) is None  # it is counted from the start of the code, not from the queue
    live.mark_started()
    clock.advance(2.9)
    assert spent(live) is None
    clock.advance(0.1)
    assert spent(live) == {"budget": "first_item", "limit_s": 3}


def test_after_the_first_item_its_budget_is_over(clock: FakeClock) -> None:
    live = make(clock, first_item_s=3)
    live.mark_started()
    item(live)
    clock.advance(1000)
    assert spent(live) is None
    assert clock.pending == 0


def test_a_note_is_no_item(clock: FakeClock) -> None:
    live = make(clock, notes=True, first_item_s=3, gap_s=3)
    live.mark_started()
    clock.advance(2)
    live.note("progress", {"fraction": 0.5})
    clock.advance(1)
    assert spent(live) == {"budget": "first_item", "limit_s": 3}


def test_a_note_ends_no_gap(clock: FakeClock) -> None:
    live = make(clock, notes=True, gap_s=3)
    live.mark_started()
    item(live)
    clock.advance(2)
    live.note("progress", {"fraction": 0.5})
    clock.advance(1)
    assert spent(live) == {"budget": "gap", "limit_s": 3}


def test_the_end_belongs_to_the_last_gap(clock: FakeClock) -> None:
    live = make(clock, gap_s=3)
    live.mark_started()
    item(live)
    clock.advance(2)
    live.complete(has_answer=False)
    clock.advance(1000)
    assert live.cancel_reason is None
    assert clock.pending == 0


@given(st.lists(st.integers(1, 60), max_size=20), st.integers(1, 40))
def test_a_call_is_cut_in_the_first_gap_that_is_too_long(gaps: list[int], limit: int) -> None:
    clock = FakeClock()
    live = make(clock, gap_s=limit)
    live.mark_started()
    item(live)
    for gap in gaps:
        clock.advance(min(gap, limit) - 0.5)
        assert live.cancel_reason is None
        clock.advance(gap - min(gap, limit) + 0.5)
        if gap >= limit:
            assert spent(live) == {"budget": "gap", "limit_s": limit}
            return
        item(live)
    assert live.cancel_reason is None


def test_one_timer_serves_many_items(clock: FakeClock) -> None:
    live = make(clock, gap_s=10)
    live.mark_started()
    for _ in range(1000):
        item(live)
    assert clock.pending == 1


async def read(reader: WindowedReader) -> None:
    async for _ in reader:
        pass


@pytest.mark.anyio
async def test_time_in_which_readers_hold_it_back_is_no_gap(clock: FakeClock) -> None:
    live = make(clock, gap_s=3)
    live.mark_started()
    for _ in range(3):
        item(live)
    async with live.reader() as reader, anyio.create_task_group() as tasks:
        tasks.start_soon(live.breathe)
        await anyio.wait_all_tasks_blocked()
        clock.advance(100)
        assert live.cancel_reason is None
        tasks.start_soon(read, reader)
        await anyio.wait_all_tasks_blocked()
        assert not live.readers.holding
        clock.advance(2.9)
        assert live.cancel_reason is None
        clock.advance(0.2)
        assert spent(live) == {"budget": "gap", "limit_s": 3}
        tasks.cancel_scope.cancel()


def test_the_first_budget_to_be_spent_is_named(clock: FakeClock) -> None:
    live = make(clock, timeout_s=5, first_item_s=4)
    live.mark_started()
    clock.advance(10)
    assert spent(live) == {"budget": "first_item", "limit_s": 4}
    other = make(clock, timeout_s=4, first_item_s=5)
    other.mark_started()
    clock.advance(10)
    assert spent(other) == {"budget": "total", "limit_s": 4}


def test_a_cancel_that_came_first_stays(clock: FakeClock) -> None:
    live = make(clock, first_item_s=4)
    live.mark_started()
    live.cancel(CancelReason.CALLER)
    clock.advance(4.5)
    assert live.cancel_reason is CancelReason.CALLER


def test_the_clock_on_the_wall_may_jump(clock: FakeClock) -> None:
    live = make(clock, gap_s=3)
    live.mark_started()
    item(live)
    clock.jump_wall(-1e6)
    clock.advance(2)
    item(live)
    clock.jump_wall(2e6)
    clock.advance(2.9)
    assert live.cancel_reason is None
    clock.advance(0.1)
    assert spent(live) == {"budget": "gap", "limit_s": 3}
