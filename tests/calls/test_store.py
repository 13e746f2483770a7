"""Which calls are known: by which id, to whom, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.store import CallStore
from penstock.errors import CallError, ErrorCode, ReplayTruncated
from penstock.protocol.dispatch import LOCAL, Caller
from penstock.protocol.messages import CancelReason, Start
from penstock.testing import FakeClock

MakeLive = Callable[..., Live]
ANNA, BEN = Caller(key="anna"), Caller(key="ben")


def store(clock: FakeClock, **limits: float) -> CallStore:
    return CallStore(CallLimits(**limits), clock)  # type: ignore[arg-type]


def end(live: Live) -> None:
    live.complete(has_answer=False)


def known(calls: CallStore, call_id: str, caller: Caller = LOCAL) -> bool:
    try:
        calls.find(call_id, caller)
    except CallError as error:
        return error.code is not ErrorCode.NOT_FOUND
    return True


# -- names ---------------------------------------------------------------------------------------------


def test_a_name_in_flight_is_refused(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock)
    calls.add(make_live(task_id="t"))
    with pytest.raises(CallError, match="task t is in flight; cancel it") as refused:
        calls.check(LOCAL, "t")
    assert refused.value.code is ErrorCode.CONFLICT
    calls.check(LOCAL, "u")
    calls.check(LOCAL, None)
    calls.check(ANNA, "t")


def test_a_finished_name_may_be_used_again_and_the_old_log_stays(
    clock: FakeClock, make_live: MakeLive
) -> None:
    calls = store(clock)
    old, new = make_live(task_id="t"), make_live(task_id="t")
    calls.add(old)
    end(old)
    calls.check(LOCAL, "t")
    calls.add(new)
    assert calls.find("t", LOCAL) is new
    assert calls.find(old.request_id, LOCAL) is old
    assert calls.find(new.request_id, LOCAL) is new
    end(new)
    clock.advance(1000)
    assert calls.find("t", LOCAL) is new


def test_forgetting_the_old_call_does_not_take_its_name_from_the_new(
    clock: FakeClock, make_live: MakeLive
) -> None:
    calls = store(clock, known_calls=1)
    old, new = make_live(task_id="t"), make_live(task_id="t")
    for live in (old, new):
        calls.add(live)
        end(live)
    assert not known(calls, old.request_id)
    assert calls.find("t", LOCAL) is new


@pytest.mark.parametrize("caller", [BEN, Caller()])
def test_another_key_finds_nothing_by_either_id(
    clock: FakeClock, make_live: MakeLive, caller: Caller
) -> None:
    calls = store(clock)
    live = make_live(key="anna", task_id="t")
    calls.add(live)
    for call_id in ("t", live.request_id):
        with pytest.raises(CallError, match="no task") as refused:
            calls.find(call_id, caller)
        assert refused.value.code is ErrorCode.NOT_FOUND
        assert calls.find(call_id, ANNA) is live
    assert calls.of(caller) == []
    assert calls.of(ANNA) == [live]


def test_an_admin_finds_everybody_s_calls_by_request_id(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock)
    admin = Caller(key="root", admin=True)
    of_anna, own = make_live(key="anna", task_id="t"), make_live(key="root", task_id="u")
    calls.add(of_anna)
    calls.add(own)
    assert calls.find(of_anna.request_id, admin) is of_anna
    assert not known(calls, "t", admin)  # a name of Anna's
    assert calls.find("u", admin) is own
    assert calls.of(admin) == [of_anna, own]


def test_too_many_in_flight_are_refused_until_one_ends(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock, in_flight=2)
    lives = [make_live(), make_live()]
    for live in lives:
        calls.add(live)
    with pytest.raises(CallError, match="2 calls are in flight") as refused:
        calls.check(ANNA, None)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.RESOURCE_EXHAUSTED, 1)
    end(lives[0])
    calls.check(ANNA, None)
    assert list(calls.live()) == [lives[1]]
    assert len(calls) == 1


# -- how long ------------------------------------------------------------------------------------------


def test_frames_go_after_their_time_and_the_record_stays(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock, kept_for_s=300.0)
    first, second = make_live(), make_live()
    calls.add(first)
    calls.add(second)
    end(first)
    clock.advance(100)
    end(second)
    clock.advance(199)
    assert first.log.kept_size > 0
    clock.advance(2)
    assert (first.log.kept_size, second.log.kept_size > 0) == (0, True)
    with pytest.raises(ReplayTruncated):
        calls.find(first.request_id, LOCAL).reader()
    assert calls.find(first.request_id, LOCAL).record().status == "completed"
    clock.advance(100)
    assert second.log.kept_size == 0
    assert clock.pending == 0


def test_a_call_in_flight_is_never_forgotten(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock, kept_for_s=10.0, known_calls=1, kept_in_all=1)
    live = make_live()
    calls.add(live)
    for _ in range(5):
        other = make_live()
        calls.add(other)
        end(other)
    clock.advance(1000)
    assert calls.find(live.request_id, LOCAL) is live
    assert live.log.kept_size > 0


def test_kept_bytes_are_bounded_and_the_oldest_go_first(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock, kept_in_all=5000)
    lives = [make_live() for _ in range(6)]
    for live in lives:
        calls.add(live)
        live.log.item("x" * 1500, 0)
        end(live)
        assert sum(each.log.kept_size for each in lives if each.ending) <= 5000
    assert [live.log.kept_size > 0 for live in lives] == [False] * 4 + [True] * 2


def test_one_call_past_the_whole_bound_is_not_kept(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock, kept_in_all=1000)
    live = make_live()
    calls.add(live)
    live.log.item("x" * 5000, 0)
    end(live)
    assert live.log.kept_size == 0
    assert calls.find(live.request_id, LOCAL) is live


def test_each_call_keeps_no_more_than_its_share(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock)
    live = make_live(kept_per_call=3000)
    calls.add(live)
    for _ in range(10):
        live.log.item("x" * 900, 0)
    end(live)
    assert 0 < live.log.kept_size <= 3000


def test_closing_leaves_no_timer(clock: FakeClock, make_live: MakeLive) -> None:
    calls = store(clock)
    live = make_live()
    calls.add(live)
    end(live)
    assert clock.pending == 1
    calls.close()
    calls.close()
    assert clock.pending == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.booleans()), max_size=60),
    st.integers(1, 6),
)
def test_however_calls_come_and_go_what_is_known_is_bounded(
    steps: list[tuple[str, int, bool]], bound: int
) -> None:
    clock = FakeClock()
    limits = CallLimits(known_calls=bound, kept_for_s=50.0, kept_in_all=2000)
    calls = CallStore(limits, clock)
    opened: list[Live] = []
    in_order_of_their_end: list[Live] = []
    for number, (task_id, wait, ends) in enumerate(steps):
        clock.advance(wait)
        try:
            calls.check(LOCAL, task_id)
        except CallError:
            calls.find(task_id, LOCAL).cancel(CancelReason.CALLER)
            calls.find(task_id, LOCAL).end_cut()
        live = Live(Start(task_id=task_id), f"{number:032x}", LOCAL, clock=clock, limits=limits)
        calls.add(live)
        live.on_end(in_order_of_their_end.append)
        opened.append(live)
        live.log.item("x" * wait * 10, 0)
        if ends:
            end(live)
        ended = [each for each in in_order_of_their_end if known(calls, each.request_id)]
        assert ended == in_order_of_their_end[-bound:]
        assert sum(each.log.kept_size for each in ended) <= 2000
        assert calls.find(task_id, LOCAL) is live or live.ending
        assert set(calls.live()) == {each for each in opened if not each.ending}
