"""Which regions are one object, and from which frame on that is known."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.annotate.records import Frame, Region
from penstock.annotate.tracking import Tracker, Tracking

RATE = 10
Boxes = list[tuple[str, tuple[float, float, float, float]]]


def frame(number: int, boxes: Boxes, name: str = "a.mp4") -> Frame:
    regions = tuple(
        Region(id=f"{label}-{number}", label=label[0], box=box, src="model") for label, box in boxes
    )
    at = str(Fraction(number, RATE))
    return Frame(src="s", name=name, frame=number, pts=number, tb="1/10", t=at, w=200, h=100, regions=regions)


def tracked(frames: list[Frame], **fields: float) -> list[Frame]:
    tracker = Tracker(Tracking(**fields))  # type: ignore[arg-type]
    return [*(one for given in frames for one in tracker.feed(given)), *tracker.flush()]


def tracks(frames: list[Frame]) -> dict[str, set[str | None]]:
    """Return the ids of each object, by the first part of its regions' ids."""
    found: defaultdict[str, set[str | None]] = defaultdict(set)
    for one in frames:
        for region in one.regions:
            found[region.id.split("-")[0]].add(region.track)
    return dict(found)


def at(x: float, y: float, size: float = 20) -> tuple[float, float, float, float]:
    return (x, y, x + size, y + size)


def crossing(number: int) -> Boxes:
    """Two things of one kind that meet in the middle."""
    return [("xa", at(number * 4, 20)), ("xb", at(160 - number * 4, 50))]


def test_objects_keep_their_ids_from_the_first_frame_on() -> None:
    found = tracked([frame(number, crossing(number)) for number in range(40)])
    assert len(found) == 40
    assert tracks(found) == {"xa": {"t1"}, "xb": {"t2"}}


def test_fast_things_are_met_where_they_are_expected() -> None:
    steps = [0, 4, 12, 24, 40, 58, 76, 94, 112]
    assert tracks(tracked([frame(n, [("x", at(x, 20))]) for n, x in enumerate(steps)])) == {"x": {"t1"}}


def test_what_is_seen_too_shortly_is_no_object() -> None:
    frames = [frame(number, [("x", at(5, 5))] if number in (3, 4) else []) for number in range(9)]
    assert tracks(tracked(frames)) == {"x": {None}}
    assert tracks(tracked(frames, hits=2)) == {"x": {"t1"}}


@pytest.mark.parametrize(("gap", "ids"), [(5, {"t1"}), (15, {"t1", "t2"})])
def test_an_object_may_go_unseen_for_a_while(gap: int, ids: set[str]) -> None:
    frames = [frame(number, [] if 10 <= number < 10 + gap else [("x", at(5, 5))]) for number in range(40)]
    assert tracks(tracked(frames, lost_s=1.0)) == {"x": ids}


def test_labels_are_never_mixed() -> None:
    frames = [frame(number, [("x" if number < 5 else "y", at(5, 5))]) for number in range(10)]
    assert tracks(tracked(frames)) == {"x": {"t1"}, "y": {"t2"}}


def test_each_file_has_its_own_objects() -> None:
    frames = [frame(n, [("x", at(5, 5))], name) for name in ("a", "b") for n in range(5)]
    assert [one.regions[0].track for one in tracked(frames)] == ["t1"] * 10


def test_where_an_object_must_have_been_is_filled_in() -> None:
    frames = [frame(n, [] if n in (5, 6) else [("x", at(n * 4, 10))]) for n in range(12)]
    found = tracked(frames, fill_s=0.5)
    filled = {one.frame: one.regions[0] for one in found if one.frame in (5, 6)}
    assert {number: region.box for number, region in filled.items()} == {5: at(20, 10), 6: at(24, 10)}
    assert {(region.src, region.track, region.score) for region in filled.values()} == {
        ("interpolated", "t1", None)
    }
    assert [len(one.regions) for one in found] == [1] * 12
    assert [len(one.regions) for one in tracked(frames, fill_s=0.2)].count(0) == 2
    assert tracked(found, fill_s=0.5)[7:] == found[7:]


moves = st.lists(
    st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 9), st.integers(0, 3)), max_size=3), max_size=20
)


@settings(deadline=None, max_examples=60)
@given(moves, st.integers(0, 20), st.sampled_from([0.0, 0.3]))
def test_replayed_from_its_own_frames_it_goes_on_the_same(
    moved: list[list[tuple[str, int, int]]], cut: int, fill_s: float
) -> None:
    frames = [frame(n, [(label, at(x * 8, y * 8)) for label, x, y in one]) for n, one in enumerate(moved)]
    whole = tracked(frames, fill_s=fill_s)
    assert [one.frame for one in whole] == list(range(len(frames)))
    logged = whole[:cut]
    tracker = Tracker(Tracking(fill_s=fill_s))
    given = sum(len(list(tracker.feed(one))) for one in logged)
    rest = [*(one for left in frames[len(logged) :] for one in tracker.feed(left)), *tracker.flush()]
    again = rest[len(logged) - given :]
    assert [*logged, *again] == whole
    plain = [msgspec.structs.replace(one, regions=()) for one in whole]
    assert plain == [msgspec.structs.replace(one, regions=()) for one in frames]
