"""Stop strings, however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.stops import StopFilter

# Few letters, so that stop strings really overlap with the text and with each other.
WORD = st.text("ab🌟", min_size=1, max_size=4)


def whole(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop string that is complete first, and whether there is one."""
    for end in range(len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)], True
    return text, False


@given(pieces=st.lists(st.text("ab🌟", max_size=5), max_size=8), stops=st.lists(WORD, max_size=3))
def test_what_is_shown_does_not_depend_on_the_cuts(pieces: list[str], stops: list[str]) -> None:
    stop_filter, shown = StopFilter(stops), ""
    due, hit = whole("".join(pieces), stops)
    for piece in pieces:
        shown += stop_filter.feed(piece)
        assert due.startswith(shown)
        if stop_filter.hit:
            break
    assert (shown + stop_filter.flush(), stop_filter.hit) == (due, hit)


def test_it_holds_back_no_more_than_it_must() -> None:
    stop_filter = StopFilter(["END"])
    assert [stop_filter.feed(piece) for piece in ("a E", "N", "x", "EN", "D tail")] == [
        "a ",
        "",
        "ENx",
        "",
        "",
    ]
    assert stop_filter.hit


@pytest.mark.parametrize("text", ["", "E", "EN"])
def test_an_end_gives_back_what_was_held(text: str) -> None:
    stop_filter = StopFilter(["END"])
    assert stop_filter.feed(text) == ""
    assert stop_filter.flush() == text


def test_without_stops_everything_passes() -> None:
    assert StopFilter(()).feed("anything") == "anything"
