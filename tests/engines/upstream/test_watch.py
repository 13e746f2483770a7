"""The watch over waits: whose cancel it was, and what it costs those it does not concern."""

from __future__ import annotations

import asyncio
import sys

import anyio
import pytest

from engines.upstream.talk import call
from penstock.calls.tasks import TaskOwner
from penstock.engines.upstream.patience import Deadlines, Patience
from penstock.engines.upstream.watch import Watch
from penstock.errors import CallError, ErrorCode

pytestmark = pytest.mark.anyio

CUT = CallError("cut", ErrorCode.UNAVAILABLE)


def watch_of(**patience: float) -> tuple[Deadlines, Watch]:
    deadlines = Deadlines(Patience(**patience), "e")
    deadlines.begin()
    return deadlines, Watch(deadlines)


async def test_a_wait_that_ends_in_time_is_left_alone() -> None:
    _, watch = watch_of(first_token_s=5)
    with watch:
        await asyncio.sleep(0)
    watch.close()
    assert watch.cause is None


async def test_a_wait_past_its_time_raises_the_budget() -> None:
    deadlines, watch = watch_of(first_token_s=5, gap_s=0.05)
    deadlines.flowing = True
    for _ in range(2):
        # The second raises at once: what was cut stays cut.
        with anyio.fail_after(5), pytest.raises(CallError, match="gap budget"), watch:
            await asyncio.Event().wait()
    watch.close()


async def test_each_wait_has_the_whole_gap() -> None:
    deadlines, watch = watch_of(gap_s=0.1)
    deadlines.flowing = True
    for _ in range(4):
        with watch:
            await asyncio.sleep(0.05)
    watch.close()
    assert watch.cause is None


async def test_a_wait_whose_time_is_over_already_does_not_begin() -> None:
    with call(0.0):
        _, watch = watch_of()
        with pytest.raises(CallError, match="total budget"), watch:
            raise AssertionError("unreachable")


async def test_time_between_waits_does_not_count() -> None:
    deadlines, watch = watch_of(gap_s=0.05)
    deadlines.flowing = True
    with watch:
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    with watch:
        await asyncio.sleep(0)
    watch.close()
    assert watch.cause is None


async def test_what_is_cut_from_outside_raises_that_reason_now_and_later() -> None:
    owner = TaskOwner()
    _, watch = watch_of()

    async def wait() -> None:
        with watch:
            await asyncio.Event().wait()

    waiting = owner.start(wait(), awaited=True)
    await anyio.wait_all_tasks_blocked()
    assert watch.waiting
    watch.cut(CUT)
    watch.cut(CallError("another"))
    with pytest.raises(CallError) as raised:
        await waiting
    assert raised.value is CUT
    with pytest.raises(CallError, match="cut"), watch:
        raise AssertionError("unreachable")
    watch.close()


async def test_a_task_that_was_cut_is_not_cancelled_afterwards() -> None:
    _, watch = watch_of(first_token_s=0.02)
    with pytest.raises(CallError), watch:
        await asyncio.Event().wait()
    watch.close()
    # A cancel that was not taken back would end the first wait of a scope.
    with anyio.fail_after(5):
        await asyncio.sleep(0.01)
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_a_cancel_by_others_stays_theirs() -> None:
    _, watch = watch_of(first_token_s=5)
    with anyio.move_on_after(0.02) as scope, watch:
        await asyncio.Event().wait()
    watch.close()
    assert scope.cancelled_caught


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not count cancels")
async def test_a_cancel_by_others_in_the_same_moment_goes_first() -> None:
    owner = TaskOwner()
    _, watch = watch_of()

    async def wait() -> None:
        with watch:
            await asyncio.Event().wait()

    waiting = owner.start(wait(), awaited=True)
    await anyio.wait_all_tasks_blocked()
    watch.cut(CUT)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    watch.close()


async def test_an_error_of_the_wait_itself_passes() -> None:
    _, watch = watch_of()
    with pytest.raises(ValueError, match="own"), watch:
        raise ValueError("own")
    watch.close()


async def test_budgets_are_named_by_what_ran_out() -> None:
    with call(0.0):
        assert Deadlines(Patience(), "e").overdue().details == ({"budget": "total", "limit_s": 0.0},)
    deadlines = Deadlines(Patience(gap_s=3, first_token_s=4), "e")
    assert deadlines.remaining() is None
    assert deadlines.overdue().details == ({"budget": "first_token", "limit_s": 4},)
    deadlines.flowing = True
    assert deadlines.overdue().details == ({"budget": "gap", "limit_s": 3},)


@pytest.mark.parametrize("options", [{"gap_s": 0}, {"gap_s": "x"}, {"retries": 11}, {"patience": 1}])
async def test_a_wrong_bound_is_named(options: dict[str, object]) -> None:
    with pytest.raises(CallError, match=r"openai: .*bounds are connect_s, first_token_s") as raised:
        Patience.of("openai", options)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


async def test_bounds_are_read_from_texts() -> None:
    assert Patience.of("openai", {"gap_s": "2.5", "retries": "0"}) == Patience(gap_s=2.5, retries=0)
