"""Frames between those that were looked at: what is followed is on a straight line, and marked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.logs import write_log
from penstock.annotate.formats.between import with_between
from penstock.annotate.formats.registry import dataset_of, export
from penstock.annotate.records import Frame, Region
from penstock.annotate.shapes.kinds import bounds, corners


def frame(number: int, *regions: Region, name: str = "a.mp4", t: str | None = None) -> Frame:
    place = {"src": "s", "name": name, "pts": number, "tb": "1/30", "t": t or f"{number}/30"}
    return Frame(frame=number, w=200, h=100, regions=regions, **place)


def box(x: float, track: str | None = "t1", label: str = "car") -> Region:
    return Region(
        id=f"{x}{track}", label=label, box=(x, 5.0, x + 10, 20.0), score=0.5, track=track, src="model"
    )


def test_what_is_in_both_is_between_them() -> None:
    found = list(with_between([frame(0, box(0.0), box(50.0, None)), frame(5, box(10.0), box(90.0, "t2"))]))
    assert [one.frame for one in found] == [0, 1, 2, 3, 4, 5]
    assert [one.regions[0].box[0] for one in found] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert [len(one.regions) for one in found] == [2, 1, 1, 1, 1, 2]
    middle = found[2].regions[0]
    assert (middle.src, middle.track, middle.label, middle.score) == ("interpolated", "t1", "car", None)
    assert (found[2].t, found[2].pts) == (str(Fraction(2, 30)), None)


def test_nothing_is_known_of_what_is_in_one_only() -> None:
    for other in (box(10.0, "t2"), box(10.0, label="van"), box(10.0, None)):
        assert len(list(with_between([frame(0, box(0.0)), frame(5, other)]))) == 2
    elsewhere = [frame(0, box(0.0)), frame(5, box(10.0), name="b.mp4")]
    assert list(with_between(elsewhere)) == elsewhere
    away = [frame(0, box(0.0)), frame(2), frame(4, box(8.0))]
    assert list(with_between(away)) == away


def test_a_turned_box_turns_the_shorter_way() -> None:
    regions = [
        Region(id=f"{n}", label="x", box=bounds(corners(obb)), obb=obb, track="t", src="model")
        for n, obb in enumerate([(50.0, 50.0, 20.0, 10.0, 170.0), (60.0, 50.0, 20.0, 10.0, -170.0)])
    ]
    _, middle, _ = with_between([frame(0, regions[0]), frame(2, regions[1])])
    assert middle.regions[0].obb == (55.0, 50.0, 20.0, 10.0, 180.0)
    assert middle.regions[0].box == pytest.approx((45.0, 45.0, 65.0, 55.0))


NUMBERS = st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True).map(sorted)


@given(NUMBERS, st.lists(st.floats(0, 190), min_size=6, max_size=6))
def test_what_was_looked_at_stays_and_ids_are_its_own(numbers: list[int], xs: list[float]) -> None:
    looked = [frame(number, box(x), t=f"{number}") for number, x in zip(numbers, xs, strict=False)]
    found = list(with_between(looked))
    assert [one for one in found if one.pts is not None] == looked
    assert [one.frame for one in found] == list(range(numbers[0], numbers[-1] + 1))
    ids = [one.regions[0].id for one in found if one.pts is None]
    assert len(set(ids)) == len(ids)
    for one in found:
        assert 0 <= one.regions[0].box[0] <= 190


def test_every_frame_of_a_track_can_be_exported(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    report = export(log, ["mot", "csv", "cvat-video"], tmp_path / "out", between=True)
    assert report.is_sound
    rows = (tmp_path / "out/mot/walk/gt/gt.txt").read_text().splitlines()
    lefts = {int(row.split(",")[0]): float(row.split(",")[2]) for row in rows if row.split(",")[1] == "1"}
    assert lefts == {number + 1: 3.0 + number for number in range(31)}
    assert sum(1 for _ in dataset_of(log).shots()) == 9  # only if it is asked for
