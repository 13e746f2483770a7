"""The drain rate is what was given back, by the time in which something was held."""

from __future__ import annotations

import pytest

from penstock.calls.drain import DrainRate
from penstock.testing import FakeClock


def test_nothing_is_known_until_something_was_given_back() -> None:
    clock = FakeClock()
    rate = DrainRate(clock.monotonic)
    assert rate.per_second() is None
    rate.taken()
    clock.advance(5)
    assert rate.per_second() is None
    rate.given_back(100)
    assert rate.per_second() == pytest.approx(20)


def test_idle_time_does_not_count() -> None:
    clock = FakeClock()
    rate = DrainRate(clock.monotonic)
    for _ in range(3):
        rate.taken()
        clock.advance(2)
        rate.given_back(100)
        clock.advance(3600)
    assert rate.per_second() == pytest.approx(50)


def test_those_at_the_same_time_add_up() -> None:
    clock = FakeClock()
    rate = DrainRate(clock.monotonic)
    rate.taken()
    rate.taken()
    clock.advance(4)
    rate.given_back(100)
    rate.given_back(300)
    assert rate.per_second() == pytest.approx(100)


def test_the_last_ones_count_and_silence_lowers_the_rate() -> None:
    clock = FakeClock()
    rate = DrainRate(clock.monotonic)
    for seconds in [100.0] * 100 + [1.0] * 64:
        rate.taken()
        clock.advance(seconds)
        rate.given_back(10)
    assert rate.per_second() == pytest.approx(10)
    rate.taken()
    clock.advance(63)
    assert rate.per_second() == pytest.approx(5)
