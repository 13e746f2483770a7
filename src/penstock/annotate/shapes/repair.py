"""Polygons made fit to be written: valid, inside their image, and no more points than are needed."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, NamedTuple

from penstock.annotate.extras import needed
from penstock.annotate.records import Part, Point, Polys, Ring
from penstock.annotate.shapes.raster import overlap, rasterise

_RING = 3  # points
# Simplified this little, a ring along the edges of pixels keeps its points anyway.
_LEAST_TOLERANCE = 1 / 16


class Fitted(NamedTuple):
    """Polygons after all of it, and the IoU of their mask with that of what went in, repaired and clipped."""

    polys: Polys
    iou: float


def fit(polys: Polys, width: int, height: int, *, tolerance: float = 0.0, floor: float = 1.0) -> Fitted:
    """Repair polygons, clip them to their image, and leave out points.

    Args:
        polys: Any rings; those with a number that is not finite or fewer than three points are left out.
        width: Of the image, in pixels; so is ``height``.
        tolerance: How far an edge may move when points are left out, in pixels.
        floor: The IoU of the masks, before and after, below which a smaller tolerance is tried.
    """
    clipped = clip(repair(polys), width, height)
    if not clipped or tolerance <= 0:
        return Fitted(clipped, 1.0)
    return simplify(clipped, width, height, tolerance=tolerance, floor=floor)


def repair(polys: Polys) -> Polys:
    """Return valid polygons that cover what the given ones do, parts that overlap joined.

    Rings that are no rings are left out: fewer than three points, a number that is not finite, no area.
    """
    shapely = needed("shapely", "the repair of polygons")
    usable = [part for part in map(_finite, polys) if part]
    shapes = [_valid(shapely, shapely.Polygon(part[0], part[1:])) for part in usable]
    if len(shapes) == 1:
        return _polys(shapely, shapes[0])
    return _polys(shapely, shapely.union_all(shapes))


def clip(polys: Polys, width: int, height: int) -> Polys:
    """Return what of valid polygons lies in an image."""
    if all(0 <= x <= width and 0 <= y <= height for part in polys for x, y in part[0]):
        return polys
    shapely = needed("shapely", "the clipping of polygons")
    whole = shapely.union_all([shapely.Polygon(part[0], part[1:]) for part in polys])
    found = _polys(shapely, _valid(shapely, shapely.intersection(whole, shapely.box(0, 0, width, height))))
    # What is cut off may leave a coordinate outside by less than anybody can see.
    return tuple(
        tuple(tuple((min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in ring) for ring in part)
        for part in found
    )


def simplify(polys: Polys, width: int, height: int, *, tolerance: float, floor: float = 0.0) -> Fitted:
    """Leave points out of valid polygons, as many as the tolerance and the IoU of the masks allow."""
    shapely = needed("shapely", "simpler polygons")
    before = rasterise(polys, height, width)
    whole = shapely.MultiPolygon([(part[0], part[1:]) for part in polys])
    while tolerance >= _LEAST_TOLERANCE:
        found = _polys(shapely, _valid(shapely, shapely.simplify(whole, tolerance)))
        iou = overlap(before, rasterise(found, height, width))
        if found and iou >= floor:
            return Fitted(found, iou)
        tolerance /= 2
    return Fitted(polys, 1.0)


def _finite(part: Part) -> Part:
    outside, *holes = (_ring(ring) for ring in part) if part else ((),)
    return (outside, *(hole for hole in holes if hole)) if outside else ()


def _ring(ring: Ring) -> Ring:
    if len(ring) < _RING or not all(isfinite(x) and isfinite(y) for x, y in ring):
        return ()
    return ring


def _valid(shapely: Any, shape: Any) -> Any:
    if shapely.is_valid(shape):
        return shape
    return shapely.make_valid(shape, method="structure", keep_collapsed=False)


def _polys(shapely: Any, shape: Any) -> Polys:
    """Return the polygons of a geometry, each ring from its topmost, then leftmost point on."""
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area > 0]
    found = (_part(part) for part in shapely.orient_polygons(parts))
    return tuple(sorted(found, key=lambda part: [_place(point) for point in part[0]]))


def _part(polygon: Any) -> Part:
    outside, *holes = (_turned(ring.coords[:-1]) for ring in (polygon.exterior, *polygon.interiors))
    return (outside, *sorted(holes, key=lambda ring: [_place(point) for point in ring]))


def _turned(points: Iterable[Point]) -> Ring:
    ring = [(x + 0.0, y + 0.0) for x, y in points]  # no -0.0
    start = min(range(len(ring)), key=lambda at: _place(ring[at]))
    return tuple(ring[start:] + ring[:start])


def _place(point: Point) -> tuple[float, float]:
    return (point[1], point[0])
