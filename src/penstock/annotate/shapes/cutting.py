"""Parts with holes, cut into parts without: for formats that have one ring for each.

The usual way, a bridge from the outside to the hole and back, gives a ring that touches itself, which is not
valid.
"""

from __future__ import annotations

from math import floor
from typing import Any

from penstock.annotate.extras import needed
from penstock.annotate.records import Part, Polys, Ring
from penstock.annotate.shapes.kinds import bounds
from penstock.annotate.shapes.repair import repair


def without_holes(part: Part) -> tuple[Ring, ...]:
    """Return rings that cover what a valid part does and do not overlap, cut upright through its holes."""
    if len(part) == 1:
        return part
    shapely = needed("shapely", "the cutting of holes")
    found: list[Ring] = []
    waiting = [part]
    while waiting:
        cut = waiting.pop(0)
        if len(cut) == 1:
            found.append(cut[0])
        else:
            waiting.extend(_halves(shapely, cut))
    return tuple(sorted(found, key=lambda ring: (ring[0][1], ring[0][0], ring)))


def hole_free(polys: Polys) -> tuple[Ring, ...]:
    """Return rings without holes that cover what valid polygons do."""
    return tuple(ring for part in polys for ring in without_holes(part))


def _halves(shapely: Any, part: Part) -> Polys:
    """Cut a part through its first hole; along the edge of pixels, if the hole lies on them."""
    left, top, right, bottom = bounds(part[0])
    hole = bounds(part[1])
    at = (hole[0] + hole[2]) / 2
    if all(x == floor(x) for x, _ in part[1]):
        at = float(floor(at))
    whole = shapely.Polygon(part[0], part[1:])
    sides = (shapely.box(left, top, at, bottom), shapely.box(at, top, right, bottom))
    cuts = (shapely.intersection(whole, side) for side in sides)
    return tuple(piece for cut in cuts for piece in _pieces(shapely, cut))


def _pieces(shapely: Any, cut: Any) -> Polys:
    areas = [piece for piece in shapely.get_parts(cut) if piece.geom_type == "Polygon"]
    return tuple(
        found
        for piece in areas
        for found in repair(
            ((tuple(piece.exterior.coords[:-1]), *(tuple(ring.coords[:-1]) for ring in piece.interiors)),)
        )
    )
