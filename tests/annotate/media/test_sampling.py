"""Which frames are chosen, against plain references."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.annotate.media.sampling import THUMB, Sampler, Sampling

GREY = bytes(THUMB * THUMB)
times = st.lists(st.fractions(0, 3, max_denominator=90_000), min_size=1, max_size=80).map(
    lambda gaps: [sum(gaps[:at], Fraction(0)) for at in range(len(gaps))]
)


def chosen(sampling: Sampling, seconds: list[Fraction]) -> list[int]:
    sampler = Sampler(sampling)
    found = []
    for number, at in enumerate(seconds):
        if sampler.wants(number, at, number % 10 == 0, lambda: GREY):
            found.append(number)
        if sampler.is_over(number, at):
            break
    return found


@settings(deadline=None, max_examples=60)
@given(times, st.sampled_from(["2", "1/3", "30", "25", "30000/1001"]), st.sampled_from([None, "1", "0.37"]))
def test_by_time_it_is_the_first_frame_of_each_interval(
    seconds: list[Fraction], fps: str, begin: str | None
) -> None:
    start, step = Fraction(begin or 0), 1 / Fraction(fps)
    first: dict[int, int] = {}
    for number, at in enumerate(seconds):
        if at >= start:
            first.setdefault(int((at - start) // step), number)
    assert chosen(Sampling(fps=fps, begin=begin), seconds) == sorted(first.values())


@settings(deadline=None, max_examples=60)
@given(times, st.integers(1, 9), st.integers(1, 5))
def test_each_nth_up_to_a_limit(seconds: list[Fraction], every: int, limit: int) -> None:
    assert chosen(Sampling(every=every), seconds) == list(range(0, len(seconds), every))
    assert chosen(Sampling(every=every, limit=limit), seconds) == list(range(0, len(seconds), every))[:limit]


@settings(deadline=None, max_examples=60)
@given(times, st.sampled_from(["0", "0.5", "1"]), st.sampled_from(["1.5", "10/3"]))
def test_a_range_has_its_beginning_and_not_its_end(seconds: list[Fraction], begin: str, end: str) -> None:
    within = [number for number, at in enumerate(seconds) if Fraction(begin) <= at < Fraction(end)]
    assert chosen(Sampling(begin=begin, end=end), seconds) == within


@settings(deadline=None, max_examples=60)
@given(times, st.data())
def test_behind_any_frame_it_goes_on(seconds: list[Fraction], data: Any) -> None:
    sampling = data.draw(
        st.sampled_from(
            [Sampling(fps="2"), Sampling(every=3), Sampling(keyframes=True), Sampling(fps="7", limit=9)]
        )
    )
    whole = chosen(sampling, seconds)
    if not whole:
        return
    at = data.draw(st.integers(0, len(whole) - 1))
    sampler = Sampler(sampling)
    sampler.count = at
    rest = [
        number
        for number in range(whole[at], len(seconds))
        if sampler.wants(number, seconds[number], number % 10 == 0, lambda: GREY)
    ]
    assert rest == whole[at:]


def test_named_frames_end_with_the_last() -> None:
    seconds = [Fraction(number) for number in range(100)]
    assert chosen(Sampling(frames=(5, 50, 7)), seconds) == [5, 7, 50]
    assert Sampler(Sampling(frames=(5,))).is_over(5, Fraction(5))


def test_a_scene_begins_where_the_picture_changes() -> None:
    shades = [0, 0, 11, 30, 30, 30, 90, 85]
    sampler = Sampler(Sampling(scenes=12.0))
    found = []
    for number, shade in enumerate(shades):
        if sampler.wants(number, Fraction(number), False, lambda shade=shade: bytes([shade]) * THUMB**2):  # type: ignore[misc]
            found.append(number)
    assert found == [0, 3, 6]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"every": 0}, {"every": 2, "fps": "1"}, {"keyframes": True, "frames": (1,)}, {"fps": "0"}),
        *({"fps": "x"}, {"fps": "1/0"}, {"begin": "-1"}, {"end": "soon"}, {"limit": 0}),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Sampling(**wrong)
