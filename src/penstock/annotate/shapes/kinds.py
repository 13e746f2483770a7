"""Rings and what can be said of them at once.

A ring is not closed by repeating its first point.  In what is made here the outside of a part has a positive
area, reading x and y as they stand, and its holes have negative ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import cos, radians, sin
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.annotate.records import Box, Point, Polys, Ring

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask: TypeAlias = NDArray[np.bool_]

# Centre, width, height, and degrees clockwise as one sees it.
Rotated: TypeAlias = tuple[float, float, float, float, float]


def freeze(polys: Iterable[Iterable[Iterable[Sequence[Any]]]]) -> Polys:
    """Return polygons of any sequences as tuples of floats."""
    return tuple(
        tuple(tuple((float(point[0]), float(point[1])) for point in ring) for ring in part) for part in polys
    )


def ring_area(ring: Sequence[Sequence[float]]) -> float:
    """Return the area of a ring, negative if it runs the other way round."""
    last_x, last_y = ring[-1]
    total = 0.0
    for x, y in ring:
        total += last_x * y - x * last_y
        last_x, last_y = x, y
    return total / 2


def area(polys: Polys) -> float:
    """Return the area of polygons that are valid: outsides less holes."""
    return sum(
        abs(ring_area(ring)) * (-1 if number else 1) for part in polys for number, ring in enumerate(part)
    )


def bounds(points: Iterable[Point]) -> Box:
    """Return the smallest box around points, of which there is at least one."""
    xs, ys = zip(*points, strict=True)
    return (min(xs), min(ys), max(xs), max(ys))


def around(polys: Polys) -> Box:
    """Return the smallest box around polygons, of which there is at least one."""
    return bounds(point for part in polys for point in part[0])


def rectangle(box: Box) -> Ring:
    """Return a box as a ring, from its top-left corner."""
    left, top, right, bottom = box
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def clip_convex(ring: Ring, width: float, height: float) -> Ring:
    """Return what of a convex ring lies in an image; empty if nothing (Sutherland and Hodgman)."""
    for axis, most in ((0, width), (1, height)):
        for sign, limit in ((1, 0.0), (-1, -most)):
            ring = tuple(_beyond(ring, axis, sign, limit))
    return ring


def _beyond(ring: Ring, axis: int, sign: int, limit: float) -> Iterator[Point]:
    """Yield the points of a ring where ``sign`` times a coordinate is at least a limit."""
    for number, point in enumerate(ring):
        last = ring[number - 1]
        before, here = sign * last[axis] - limit, sign * point[axis] - limit
        if (before < 0) != (here < 0):
            part = before / (before - here)
            cut = [a + (b - a) * part for a, b in zip(last, point, strict=True)]
            cut[axis] = limit * sign
            yield (cut[0], cut[1])
        if here >= 0:
            yield point


def corners(rotated: Rotated) -> Ring:
    """Return a rotated box as a ring, from what was its top-left corner before it was turned."""
    x, y, width, height, degrees = rotated
    across, along = cos(radians(degrees)), sin(radians(degrees))
    halves = ((-width, -height), (width, -height), (width, height), (-width, height))
    return tuple((x + (u * across - v * along) / 2, y + (u * along + v * across) / 2) for u, v in halves)
