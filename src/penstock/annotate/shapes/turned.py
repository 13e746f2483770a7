"""The smallest box around points that may be turned."""

from __future__ import annotations

from collections.abc import Iterable
from math import atan2, cos, degrees, radians, sin

from penstock.annotate.records import Point
from penstock.annotate.shapes.kinds import Rotated, bounds

# Areas closer than this, of one, are the same: else noise of the arithmetic would choose the angle.
_SAME = 1e-9


def turned_box(points: Iterable[Point]) -> Rotated:
    """Return the box of the smallest area around points, turned by at least -45 and less than 45 degrees.

    One side of it lies along the hull of the points.  Of several as small the one turned least is taken.
    """
    hull = _hull(points)
    best: tuple[float, float, Rotated] | None = None
    for angle in {0.0, *_angles(hull)}:
        box = _around(hull, angle)
        size = (box[2] * box[3], abs(angle))
        if (
            best is None
            or size[0] < best[0] * (1 - _SAME)
            or (size[0] <= best[0] * (1 + _SAME) and size[1] < best[1])
        ):
            best = (*size, box)
    assert best is not None
    return best[2]


def _angles(hull: list[Point]) -> list[float]:
    edges = zip(hull, hull[1:] + hull[:1], strict=True)
    angles = (degrees(atan2(y2 - y1, x2 - x1)) for (x1, y1), (x2, y2) in edges if (x1, y1) != (x2, y2))
    return sorted((angle + 45) % 90 - 45 for angle in angles)


def _around(hull: list[Point], angle: float) -> Rotated:
    turn = radians(angle)
    across, along = cos(turn), sin(turn)
    left, top, right, bottom = bounds((x * across + y * along, y * across - x * along) for x, y in hull)
    u, v = (left + right) / 2, (top + bottom) / 2
    return (u * across - v * along, u * along + v * across, right - left, bottom - top, angle)


def _hull(points: Iterable[Point]) -> list[Point]:
    """Return the corners of the convex hull (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    lower, upper = _chain(ordered), _chain(ordered[::-1])
    return lower[:-1] + upper[:-1]


def _chain(ordered: list[Point]) -> list[Point]:
    chain: list[Point] = []
    for x, y in ordered:
        while len(chain) > 1:
            (x1, y1), (x2, y2) = chain[-2:]
            if (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain
