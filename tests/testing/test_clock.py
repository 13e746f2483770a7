"""The fake clock: it stands still, and moves as it is told."""

from __future__ import annotations

import pytest

from penstock.calls.clock import Clock
from penstock.testing import FakeClock


def test_it_is_a_clock_that_stands_still() -> None:
    clock: Clock = FakeClock(wall=50.0)
    assert (clock.wall(), clock.wall(), clock.monotonic()) == (50.0, 50.0, 0.0)


def test_timers_fire_in_order_each_at_its_own_time() -> None:
    clock = FakeClock(wall=100.0)
    fired: list[tuple[str, float, float]] = []
    for name, delay in (("c", 3.0), ("a", 1.0), ("b", 1.0), ("late", 9.0)):
        clock.call_later(delay, lambda name=name: fired.append((name, clock.monotonic(), clock.wall())))
    clock.advance(5)
    assert fired == [("a", 1.0, 101.0), ("b", 1.0, 101.0), ("c", 3.0, 103.0)]
    assert (clock.monotonic(), clock.wall(), clock.pending) == (5.0, 105.0, 1)


def test_a_timer_may_plan_another_that_falls_due_in_the_same_move() -> None:
    clock = FakeClock()
    fired: list[float] = []

    def again() -> None:
        fired.append(clock.monotonic())
        clock.call_later(1.0, again)

    clock.call_later(1.0, again)
    clock.advance(3.5)
    assert fired == [1.0, 2.0, 3.0]


def test_a_timer_due_at_once_fires_at_the_next_move_even_of_nothing() -> None:
    clock = FakeClock()
    fired: list[bool] = []
    clock.call_later(0.0, lambda: fired.append(True))
    clock.call_later(-5.0, lambda: fired.append(True))
    assert fired == []
    clock.advance(0)
    assert fired == [True, True]
    assert clock.monotonic() == 0.0


def test_a_cancelled_timer_does_not_fire() -> None:
    clock = FakeClock()
    fired: list[bool] = []
    clock.call_later(1.0, lambda: fired.append(True)).cancel()
    assert clock.pending == 0
    clock.advance(2)
    assert fired == []


def test_the_wall_clock_may_jump_and_nothing_else_notices() -> None:
    clock = FakeClock(wall=100.0)
    fired: list[float] = []
    clock.call_later(1.0, lambda: fired.append(clock.wall()))
    clock.jump_wall(-50)
    assert (clock.wall(), clock.monotonic(), fired) == (50.0, 0.0, [])
    clock.advance(1)
    assert fired == [51.0]


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="jump_wall"):
        FakeClock().advance(-1)
