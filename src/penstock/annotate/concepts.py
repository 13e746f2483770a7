"""What is kept of each concept: by kind, confidence, time of day and place, and by what name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from fractions import Fraction
from itertools import pairwise
from math import isfinite
from typing import Literal, TypeAlias

import msgspec

from penstock.annotate.records import Box, Line, Lines, Point, Polys, Ring
from penstock.annotate.shapes.kinds import rectangle

DataType: TypeAlias = Literal["tag", "box", "polygon", "line", "point", "mask", "text"]


class Concept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One concept that a model knows, and what is kept of it.

    Args:
        label: What the model calls it.
        name: What it is to be called; empty: the same.
        types: What may be said of it; empty: anything.
        lower: Least confidence; None: any.
        upper: Greatest confidence; None: any.
        lower_open: Whether ``lower`` itself is too little.
        upper_open: Whether ``upper`` itself is too much.
        status: Written to ``attrs`` as ``status``, such as ``AWAITING_REVIEW``.
        hours: From when until when, in the time of day: ``22:00`` and ``06:00`` cross midnight.  The second
            is no part of it.
        roi: A polygon that regions must touch, in fractions of width and height.
        avoid: A polygon that regions must not touch.

    Raises:
        ValueError: Something of it is contradictory.
    """

    label: str
    name: str = ""
    types: tuple[DataType, ...] = ()
    lower: float | None = None
    upper: float | None = None
    lower_open: bool = False
    upper_open: bool = False
    status: str = ""
    hours: tuple[str, str] | None = None
    roi: Ring = ()
    avoid: Ring = ()

    def __post_init__(self) -> None:
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"{self.label}: lower ({self.lower}) is more than upper ({self.upper})")
        if self.hours is not None:
            _ = [_clock(text) for text in self.hours]
        check_roi(self.roi)
        check_roi(self.avoid)

    def takes_score(self, score: float | None) -> bool:
        """Whether a confidence is within the range; one that is not given is."""
        if score is None:
            return True
        if self.lower is not None and (score < self.lower or (self.lower_open and score == self.lower)):
            return False
        return not (
            self.upper is not None and (score > self.upper or (self.upper_open and score == self.upper))
        )

    def takes_time(self, begins: datetime | None, seconds: Fraction) -> bool:
        """Whether a frame is within the hours.

        Args:
            begins: When the first frame was taken; None: unknown, and any hour will do.
            seconds: Since then.
        """
        if self.hours is None or begins is None:
            return True
        first, last = (_clock(text) for text in self.hours)
        now = (begins + timedelta(microseconds=int(seconds * 1_000_000))).time()
        if first <= last:
            return first <= now < last
        return now >= first or now < last


Concepts: TypeAlias = Mapping[str, Concept]


def check_roi(ring: Ring) -> None:
    """Refuse a region of interest that is none.

    Raises:
        ValueError: It has too few points, or a number that is not finite.
    """
    if ring and (len(ring) < 3 or not all(isfinite(x) and isfinite(y) for x, y in ring)):
        raise ValueError("a region of interest needs three points or more, of finite numbers")


def touches(
    roi: Ring, box: Box, polys: Polys | None, width: int, height: int, lines: Lines | None = None
) -> bool:
    """Whether a region has any point in common with a region of interest.

    Args:
        roi: In fractions of width and height.
        box: Of the region, in pixels.
        polys: Its shape, if it has one.
        width: Of the image; so is ``height``.
        lines: Its polylines, if it has some and no shape.
    """
    area = tuple((x * width, y * height) for x, y in roi)
    if polys is None and lines:
        return any(_holds(area, line[0]) or _crosses(area, line) for line in lines)
    if polys is None:
        return _meet(area, rectangle(box))
    return any(_meet_part(area, part) for part in polys)


def _meet_part(area: Ring, part: tuple[Ring, ...]) -> bool:
    if any(_cross(area, ring) for ring in part):
        return True
    if _holds(area, part[0][0]):
        return True
    # All of it lies on one side of each ring: inside the part means inside its outside and no hole.
    return _holds(part[0], area[0]) and not any(_holds(hole, area[0]) for hole in part[1:])


def _meet(one: Ring, other: Ring) -> bool:
    return _cross(one, other) or _holds(one, other[0]) or _holds(other, one[0])


def _crosses(one: Ring, line: Line) -> bool:
    edges = [*pairwise(line)]
    return any(
        _edges_meet(a, b, c, d) for a, b in zip(one, (*one[1:], one[0]), strict=True) for c, d in edges
    )


def _cross(one: Ring, other: Ring) -> bool:
    edges = [*zip(other, (*other[1:], other[0]), strict=True)]
    return any(
        _edges_meet(a, b, c, d) for a, b in zip(one, (*one[1:], one[0]), strict=True) for c, d in edges
    )


def _edges_meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    if max(a[0], b[0]) < min(c[0], d[0]) or max(c[0], d[0]) < min(a[0], b[0]):
        return False
    if max(a[1], b[1]) < min(c[1], d[1]) or max(c[1], d[1]) < min(a[1], b[1]):
        return False
    return _side(a, b, c) * _side(a, b, d) <= 0 and _side(c, d, a) * _side(c, d, b) <= 0


def _side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _holds(ring: Ring, point: Point) -> bool:
    """Whether a point is inside a ring: an odd number of edges lies to its left."""
    x, y = point
    inside = False
    last_x, last_y = ring[-1]
    for next_x, next_y in ring:
        if (next_y > y) != (last_y > y) and x < (last_x - next_x) * (y - next_y) / (last_y - next_y) + next_x:
            inside = not inside
        last_x, last_y = next_x, next_y
    return inside


def _clock(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time of day; write it like 22:00") from error
