"""What is counted of streams: when they may open, and which of them are held back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.clarifai.opens import OpenRate


def test_as_many_streams_open_at_once_as_threads_do() -> None:
    rate = OpenRate(burst=10, per_s=20)
    assert [rate.take(100.0) for _ in range(10)] == [0.0] * 10
    assert rate.take(100.0) == 1 / 20
    assert rate.take(100.0) == 2 / 20


def test_streams_that_were_of_use_cost_nothing() -> None:
    rate = OpenRate(burst=2, per_s=20)
    for _ in range(1000):
        assert rate.take(0.0) == 0.0
        rate.give_back()


@given(gaps=st.lists(st.floats(0, 1), max_size=50))
def test_in_the_long_run_no_more_are_taken_than_the_rate(gaps: list[float]) -> None:
    rate, now, taken = OpenRate(burst=3, per_s=20), 0.0, []
    for gap in gaps:
        now += gap
        taken.append(now + rate.take(now))
    for start in range(len(taken)):
        for end in range(start, len(taken)):
            assert end - start + 1 <= 3 + 20 * (taken[end] - taken[start]) + 1e-6
