"""Masks to polygons and back; polygons repaired, clipped, simplified, cut and turned."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from penstock.annotate.shapes.cutting import hole_free
from penstock.annotate.shapes.kinds import area, around, corners, rectangle, ring_area
from penstock.annotate.shapes.outline import outline
from penstock.annotate.shapes.raster import overlap, rasterise
from penstock.annotate.shapes.repair import clip, fit, repair, simplify
from penstock.annotate.shapes.turned import turned_box

# pycocotools' own arrays are from before numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))
NUMBERS = st.one_of(st.floats(-30, 50), st.integers(-30, 50).map(float), st.sampled_from([nan, inf]))
RINGS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8).map(tuple)
POLYS = st.lists(st.lists(RINGS, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple)
DISK = np.hypot(*np.ogrid[-40:40, -50:50]) < 33
RING = DISK & ~(np.hypot(*np.ogrid[-40:40, -45:55]) < 12)


def shape(part: tuple) -> shapely.Polygon:
    return shapely.Polygon(part[0], part[1:])


@settings(deadline=None)
@given(MASKS)
def test_an_outline_is_valid_and_exact(mask: np.ndarray) -> None:
    polys = outline(mask)
    shapes = [shape(part) for part in polys]
    assert all(one.is_valid for one in shapes)
    assert sum(one.area for one in shapes) == area(polys) == mask.sum()
    assert shapely.union_all(shapes).area == mask.sum()
    assert (rasterise(polys, *mask.shape) == mask).all()
    assert all((ring_area(ring) > 0) == (number == 0) for part in polys for number, ring in enumerate(part))


@settings(deadline=None)
@given(MASKS)
def test_without_holes_an_outline_is_the_mask_to_coco_too(mask: np.ndarray) -> None:
    rings = hole_free(outline(mask))
    assert all(shape((ring,)).is_valid for ring in rings)
    assert sum(map(ring_area, rings)) == mask.sum()
    if rings:
        flat = [[number for point in ring for number in point] for ring in rings]
        found = coco.decode(coco.merge(coco.frPyObjects(flat, *mask.shape)))
        assert (found == mask).all()


@pytest.mark.parametrize(
    ("rows", "parts", "holes"),
    [
        (["#"], 1, 0),
        (["#.", ".#"], 2, 0),
        (["###", "#.#", "###"], 1, 1),
        (["###.", "#.#.", "##.#", ".###"], 1, 2),  # two holes that touch at a corner
        ([".###", "#..#", "#..#", "####"], 1, 1),  # the outside touches the hole at a corner
        (["#####", "#...#", "#.#.#", "#...#", "#####"], 2, 1),
        (["#.#.#", ".#.#.", "#.#.#"], 8, 0),
        (["...", "..."], 0, 0),
    ],
)
def test_parts_and_holes(rows: list[str], parts: int, holes: int) -> None:
    polys = outline(np.array([[one == "#" for one in row] for row in rows]))
    assert (len(polys), sum(len(part) - 1 for part in polys)) == (parts, holes)


def test_an_outline_has_corners_only() -> None:
    assert outline(np.ones((3, 5), dtype=bool)) == (((rectangle((0.0, 0.0, 5.0, 3.0))),),)


@settings(deadline=None)
@example(((((0.0, 1.0), (0.0, -6.299132502993789e-173), (1.0, 1.0)),),))
@given(POLYS)
def test_what_is_fitted_is_valid_and_inside(polys: tuple) -> None:
    found = fit(polys, 20, 15, tolerance=1.0, floor=0.9)
    assert all(shape(part).is_valid and shape(part).area > 0 for part in found.polys)
    assert all(0 <= x <= 20 and 0 <= y <= 15 for part in found.polys for x, y in part[0])
    assert found.iou >= 0.9
    assert fit(polys, 20, 15, tolerance=1.0, floor=0.9) == found


@settings(deadline=None)
@given(MASKS)
def test_an_outline_needs_no_repair(mask: np.ndarray) -> None:
    polys = outline(mask)
    again = repair(polys)
    assert area(again) == area(polys)
    assert repair(again) == again


def test_repairs_keep_what_the_rings_cover() -> None:
    bow_tie = (((0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)),)
    assert area(repair((bow_tie,))) == 50
    over = tuple((rectangle(box),) for box in ((0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 15.0, 10.0)))
    assert [len(repair(over)), area(repair(over))] == [1, 150]
    line = (((0.0, 0.0), (5.0, 5.0), (0.0, 0.0)),)
    assert repair((line, (((nan, 1.0), (2.0, 2.0), (3.0, 3.0)),), ((),))) == ()


def test_clipping_can_make_two_of_one() -> None:
    u = ((0, 0), (2, 0), (2, 8), (4, 8), (4, 0), (6, 0), (6, 10), (0, 10))
    assert len(clip(((tuple((float(x), float(y)) for x, y in u),),), 6, 7)) == 2
    assert clip(((rectangle((20.0, 20.0, 30.0, 30.0)),),), 10, 10) == ()


def test_simpler_as_far_as_the_floor_allows() -> None:
    polys = outline(RING)
    loose = simplify(polys, 100, 80, tolerance=2.0, floor=0.5)
    tight = simplify(polys, 100, 80, tolerance=2.0, floor=0.999)
    count = [sum(len(ring) for part in found for ring in part) for found in (polys, tight.polys, loose.polys)]
    assert count[0] > count[1] > count[2]
    assert loose.iou < 0.999 <= tight.iou
    assert around(tight.polys) == around(polys)
    assert overlap(RING, rasterise(tight.polys, 80, 100)) == tight.iou
    assert len(loose.polys[0]) == 2
    assert simplify(polys, 100, 80, tolerance=5.0, floor=1.1) == (polys, 1.0)


@settings(deadline=None)
@given(POLYS)
def test_cutting_keeps_the_area(polys: tuple) -> None:
    fitted = fit(polys, 20, 15).polys
    rings = hole_free(fitted)
    assert all(shape((ring,)).is_valid for ring in rings)
    assert sum(map(ring_area, rings)) == pytest.approx(area(fitted), abs=1e-6)


@settings(deadline=None)
@given(st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(1, 90)] * 2, st.floats(-44, 44)))
def test_a_turned_box_is_found_again(box: tuple) -> None:
    x, y, width, height, angle = turned_box(corners(box))
    assert (x, y) == pytest.approx(box[:2], abs=1e-6)
    assert width * height == pytest.approx(box[2] * box[3])
    assert sorted((width, height)) == pytest.approx(sorted(box[2:4]), abs=1e-6)
    assert -45 <= angle < 45


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=12))
def test_no_smaller_turned_box_is_known(points: list) -> None:
    hull = shapely.MultiPoint(points).convex_hull
    found = turned_box(points)
    best = hull.minimum_rotated_rectangle.area
    assert found[2] * found[3] <= best + 1e-6
    around_it = shapely.Polygon(corners(found)).buffer(1e-6)
    assert hull.area < 1e-9 or around_it.contains(hull)


def test_corners_turn_as_one_sees_it() -> None:
    first, second, *_ = corners((0.0, 0.0, 2.0, 0.0, 90.0))
    assert first == pytest.approx((0, -1))
    assert second == pytest.approx((0, 1))
