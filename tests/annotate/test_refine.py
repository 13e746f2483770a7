"""What is kept of what is found, and why the rest is dropped."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from penstock.annotate import Concept, Refining, rle
from penstock.annotate.answers import Answer, Found
from penstock.annotate.overlaps import iou, resolve
from penstock.annotate.records import Tag
from penstock.annotate.refine import Refined, Refiner, Spot
from penstock.annotate.shapes.raster import overlap, rasterise

W, H = 100, 80
SPOT = Spot(src="sha256:00", copy=0, frame=0, seconds=Fraction(0), w=W, h=H)
HOURS = ("22:00", "06:00")

LEVEL = ((2.0, 5.0), (12.0, 5.0))


def box(*sides: float, label: str = "x", **fields: Any) -> Found:
    return Found(label=label, box=sides, **fields)  # type: ignore[arg-type]


def refined(*found: Found, spot: Spot = SPOT, tags: tuple[Tag, ...] = (), **settings: Any) -> Refined:
    return Refiner(Refining(**settings)).refine(Answer(list(found), tags), spot)


def boxes(made: Refined) -> list[tuple[float, ...]]:
    return [region.box for region in made.regions]


@pytest.mark.parametrize(
    ("found", "settings", "reason"),
    [
        (box(0, 0, nan, 5), {}, "not_finite"),
        (box(0, 0, 5, 5, score=inf), {}, "not_finite"),
        (Found(label="x", kp=((1.0, inf, 2),)), {}, "not_finite"),
        (box(5, 0, 1, 5), {}, "inside_out"),
        (box(5, 0, 5, 5), {}, "empty"),
        (box(200, 0, 300, 5), {}, "outside"),
        (box(-9, -9, -1, -1), {}, "outside"),
        (Found(label="x"), {}, "empty"),
        (Found(label="x", kp=((1.0, 1.0, 0),)), {}, "empty"),
        (Found(label="x", polys=((((0.0, 0.0), (5.0, 0.0)),),)), {}, "empty"),
        (Found(label="x", polys=((((200.0, 0.0), (205.0, 0.0), (205.0, 9.0)),),)), {}, "empty"),
        (Found(label="x", mask=rle.encode(np.zeros((H, W), dtype=bool))), {}, "empty"),
        (Found(label="x", lines=(((0.0, 0.0), (nan, 5.0)),)), {}, "not_finite"),
        (Found(label="x", lines=(((5.0, 5.0), (5.0, 5.0)),)), {}, "empty"),
        (Found(label="x", lines=(((-5.0, 5.0), (5.0, -6.0)),)), {}, "outside"),
        (Found(label="x", lines=(LEVEL,)), {"concepts": (Concept(label="x", types=("box",)),)}, "type"),
        (Found(label="x", lines=(LEVEL,)), {"roi": ((0.5, 0.5), (1, 0.5), (1, 1))}, "roi"),
        (box(0, 0, 5, 5, score=0.2), {"min_score": 0.3}, "score"),
        (box(0, 0, 5, 5), {"min_area": 26}, "small"),
        (box(0, 0, 5, 5), {"others": False}, "label"),
        (box(0, 0, 5, 5), {"roi": ((0.5, 0.5), (1, 0.5), (1, 1))}, "roi"),
        (box(0, 0, 5, 5), {"concepts": (Concept(label="x", types=("mask",)),)}, "type"),
        (
            box(0, 0, 5, 5, score=0.5),
            {"concepts": (Concept(label="x", lower=0.5, lower_open=True),)},
            "score",
        ),
        (
            box(0, 0, 5, 5, score=0.5),
            {"concepts": (Concept(label="x", upper=0.5, upper_open=True),)},
            "score",
        ),
    ],
)
def test_each_drop_has_its_reason(found: Found, settings: dict[str, Any], reason: str) -> None:
    made = refined(found, **settings)
    assert (made.regions, made.drops) == ((), {reason: 1})


def test_lines_are_clipped_and_may_be_level() -> None:
    zigzag = ((10.0, 10.0), (10.0, -10.0), (30.0, -10.0), (30.0, 10.0))
    made = refined(
        Found(label="x", lines=(zigzag, LEVEL), box=(0, 0, 1, 1)),
        Found(label="x", lines=(LEVEL,)),
        min_area=100,
        roi=((0.0, 0.0), (0.2, 0.0), (0.2, 0.2), (0.0, 0.2)),
        overlaps="fuse",
    )
    first, second = made.regions
    assert first.lines == (((10.0, 10.0), (10.0, 0.0)), ((30.0, 0.0), (30.0, 10.0)), LEVEL)
    assert first.box == (2.0, 0.0, 30.0, 10.0)
    assert (second.lines, second.box) == ((LEVEL,), (2.0, 5.0, 12.0, 5.0))
    assert made.drops == {}
    only = refined(Found(label="x", lines=(LEVEL,)), concepts=(Concept(label="x", types=("line",)),))
    assert only.regions[0].lines == (LEVEL,)


def test_boxes_are_clipped() -> None:
    assert boxes(refined(box(-5, -5, 10.123456, 200))) == [(0.0, 0.0, 10.1235, 80.0)]


@pytest.mark.parametrize(
    ("score", "kept"), [(0.5, True), (0.49, False), (0.8, True), (0.81, False), (None, True)]
)
def test_a_closed_range_has_its_ends(score: float | None, kept: bool) -> None:
    concept = Concept(label="x", lower=0.5, upper=0.8)
    assert bool(refined(box(0, 0, 5, 5, score=score), concepts=(concept,)).regions) is kept


@pytest.mark.parametrize(
    ("hour", "kept"), [(21.99, False), (22, True), (23.5, True), (24, True), (29.99, True), (30, False)]
)
def test_hours_may_cross_midnight(hour: float, kept: bool) -> None:
    concept = Concept(label="x", hours=HOURS)
    spot = Spot(src="", copy=0, frame=0, seconds=Fraction(str(hour)) * 3600, w=W, h=H)
    made = refined(box(0, 0, 5, 5), spot=spot, concepts=(concept,), begins="2026-11-20T00:00:00")
    assert bool(made.regions) is kept


def test_a_concept_has_another_name_and_a_status() -> None:
    concept = Concept(label="x", name="Person", status="AWAITING_REVIEW")
    (region,) = refined(box(0, 0, 5, 5, attrs={"a": 1}), concepts=(concept,)).regions
    assert (region.label, region.attrs) == ("Person", {"a": 1, "status": "AWAITING_REVIEW"})


def test_shapes_decide_the_box() -> None:
    mask = np.zeros((H, W), dtype=bool)
    mask[10:20, 5:8] = True
    given = {"box": (0.0, 0.0, 50.0, 50.0)}
    masked = Found(label="m", mask=rle.encode(mask), **given)  # type: ignore[arg-type]
    turned = Found(label="t", obb=(50.0, 40.0, 20.0, 10.0, 90.0))
    pointed = Found(label="k", kp=((3.0, 4.0, 2), (13.0, 24.0, 1), (90.0, 70.0, 0), (900.0, 4.0, 2)))
    found = boxes(refined(masked, turned, pointed))
    assert found == [(5.0, 10.0, 8.0, 20.0), (45.0, 30.0, 55.0, 50.0), (3.0, 4.0, 13.0, 24.0)]


def test_polygons_are_repaired_and_masks_get_theirs() -> None:
    bow = ((((0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)),),)
    (region,) = refined(Found(label="x", polys=bow)).regions
    assert len(region.polys or ()) == 2
    ring = np.zeros((H, W), dtype=bool)
    ring[10:20, 10:20], ring[13:16, 13:16] = True, False
    (region,) = refined(Found(label="x", mask=rle.encode(ring)), polygons=True).regions
    assert [len(part) for part in region.polys or ()] == [2]
    assert region.rle is not None


def test_a_type_may_be_another_form_of_the_same() -> None:
    mask = np.zeros((H, W), dtype=bool)
    mask[10:20, 5:8] = True
    concept = Concept(label="x", types=("polygon",))
    (region,) = refined(Found(label="x", mask=rle.encode(mask)), concepts=(concept,)).regions
    assert (region.rle, len(region.polys or ())) == (None, 1)


def test_regions_must_touch_the_region_of_interest() -> None:
    left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    hole = (
        (
            ((10.0, 10.0), (90.0, 10.0), (90.0, 70.0), (10.0, 70.0)),
            ((40.0, 20.0), (40.0, 60.0), (80.0, 60.0), (80.0, 20.0)),
        ),
    )
    inside_hole = ((0.5, 0.4), (0.6, 0.4), (0.6, 0.6))
    assert len(refined(box(49, 1, 60, 9), box(51, 1, 60, 9), roi=left).regions) == 1
    assert len(refined(box(0, 0, 100, 80), roi=inside_hole).regions) == 1
    assert refined(Found(label="x", polys=hole), roi=inside_hole).drops == {"roi": 1}
    assert len(refined(Found(label="x", polys=hole), roi=left).regions) == 1


def test_regions_may_have_to_stay_away() -> None:
    left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    both = (box(0, 0, 5, 5), box(60, 0, 65, 5), box(49, 0, 65, 5), box(0, 9, 5, 15, label="y"))
    made = refined(*both, avoid=left)
    assert (boxes(made), made.drops) == ([(60.0, 0.0, 65.0, 5.0)], {"avoid": 3})
    only = refined(*both, concepts=(Concept(label="x", name="z", avoid=left),))
    assert boxes(only) == [(60.0, 0.0, 65.0, 5.0), (0.0, 9.0, 5.0, 15.0)]
    neither = refined(*both, roi=left, avoid=left)
    assert (neither.regions, neither.drops) == ((), {"roi": 1, "avoid": 3})


def test_labels_that_become_one_keep_their_own_places() -> None:
    left, right = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)), ((0.6, 0.0), (1.0, 0.0), (1.0, 1.0))
    concepts = (
        Concept(label="x", name="vehicle", roi=left),
        Concept(label="y", name="vehicle", roi=right),
        Concept(label="z", name="vehicle"),
    )
    places = [(0, 0, 5, 5), (90, 0, 95, 5)]
    found = [box(*place, label=label) for label in "xyz" for place in places]
    made = refined(*found, concepts=concepts)
    assert boxes(made) == [
        (0.0, 0.0, 5.0, 5.0),
        (90.0, 0.0, 95.0, 5.0),
        (0.0, 0.0, 5.0, 5.0),
        (90.0, 0.0, 95.0, 5.0),
    ]
    assert made.drops == {"roi": 2}


def test_only_so_many_are_kept_the_surest() -> None:
    found = [box(n, 0, n + 1, 1, score=score) for n, score in enumerate((0.1, 0.9, 0.5))]
    made = refined(*found, most=2)
    assert [region.score for region in made.regions] == [0.9, 0.5]
    assert made.drops == {"cap": 1}


def test_tags_are_kept_by_concept() -> None:
    concepts = (
        Concept(label="day", name="Day", types=("tag",), lower=0.5),
        Concept(label="x", types=("box",)),
    )
    tags = (Tag("day", 0.6), Tag("day", 0.4), Tag("x", 1.0))
    made = refined(tags=tags, concepts=concepts)
    assert (made.tags, made.drops) == ((Tag("Day", 0.6),), {"score": 1, "type": 1})


def test_ids_differ_where_regions_do_not() -> None:
    one, two = refined(box(0, 0, 5, 5), box(0, 0, 5, 5)).regions
    assert one.id != two.id
    again = refined(box(0, 0, 5, 5), box(0, 0, 5, 5)).regions
    assert [one.id, two.id] == [region.id for region in again]
    copy = Spot(src="sha256:00", copy=1, frame=0, seconds=Fraction(0), w=W, h=H)
    assert refined(box(0, 0, 5, 5), spot=copy).regions[0].id not in (one.id, two.id)


@pytest.mark.parametrize(
    "wrong",
    [
        {"iou": 0},
        {"most": 0},
        {"roi": ((0, 0), (1, 1))},
        {"begins": "yesterday"},
        {"concepts": (Concept(label="x", hours=HOURS),)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Refining(**wrong)


@pytest.mark.parametrize("wrong", [{"lower": 2, "upper": 1}, {"hours": ("25:00", "06:00")}])
def test_concepts_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Concept(label="x", **wrong)


# -- overlaps --------------------------------------------------------------------------------------------

side = st.integers(0, 30)
some = st.lists(
    st.builds(
        lambda x, y, w, h, score, label: Found(
            label=label, score=score / 10, box=(float(x), float(y), float(x + w + 1), float(y + h + 1))
        ),
        *(side, side, side, side, st.integers(0, 10), st.sampled_from("ab")),
    ),
    max_size=12,
)


@with_settings(deadline=None, max_examples=60)
@given(some, st.sampled_from([0.3, 0.5, 0.8]), st.booleans())
def test_of_what_suppression_keeps_no_two_overlap(found: list[Found], most: float, by_class: bool) -> None:
    kept = resolve(found, "nms", most, by_class=by_class)
    for at, one in enumerate(kept):
        for other in kept[at + 1 :]:
            if not by_class or one.label == other.label:
                assert iou(one.box or (), other.box or ()) <= most  # type: ignore[arg-type]
    # What is gone overlaps with something surer that is kept.
    for one in found:
        if one not in kept:
            assert any(
                iou(one.box or (), other.box or ()) > most and (other.score or 0) >= (one.score or 0)  # type: ignore[arg-type]
                for other in kept
            )
    assert resolve(kept, "nms", most, by_class=by_class) == kept


def test_a_cluster_is_made_one() -> None:
    pair = [box(0, 0, 10, 10, score=0.8), box(2, 0, 12, 10, score=0.4)]
    (merged,) = resolve(pair, "merge", 0.5, by_class=True)
    assert (merged.box, merged.score) == ((0, 0, 12, 10), 0.8)
    (fused,) = resolve(pair, "fuse", 0.5, by_class=True)
    assert fused.box == pytest.approx((2 / 3, 0, 10 + 2 / 3, 10))
    assert fused.score == pytest.approx(0.6)
    by_two = [pair[0], Found(label="x", score=0.4, box=(2.0, 0.0, 12.0, 10.0), model=1)]
    assert resolve(by_two, "fuse", 0.5, by_class=True, models=2)[0].score == pytest.approx(0.6)
    assert resolve(pair, "fuse", 0.5, by_class=True, models=2)[0].score == pytest.approx(0.3)


def test_soft_suppression_lowers_scores() -> None:
    pair = [box(0, 0, 10, 10, score=0.8), box(0, 0, 10, 5, score=0.4), box(50, 50, 60, 60, score=0.1)]
    assert [one.score for one in resolve(pair, "soft", 0.3, by_class=True)] == pytest.approx([0.8, 0.2, 0.1])


def test_what_making_simpler_costs_is_told() -> None:
    rows, columns = np.ogrid[:H, :W]
    disk = rle.encode((rows - 40) ** 2 + (columns - 50) ** 2 < 900)
    exact = refined(Found(label="x", mask=disk), polygons=True)
    assert exact.iou == 1.0
    simpler = refined(Found(label="x", mask=disk), box(0, 0, 5, 5), polygons=True, tolerance=2.0, floor=0.9)
    assert 0.9 <= simpler.iou < 1
    polys = simpler.regions[0].polys
    assert polys is not None
    assert overlap(rasterise(polys, H, W), rle.decode(disk)) == simpler.iou
    # Of what is dropped later nothing is told.
    dropped = refined(Found(label="x", mask=disk), polygons=True, tolerance=2.0, floor=0.9, min_area=9000)
    assert (dropped.iou, dropped.drops) == (1.0, {"small": 1})
