"""Polylines: paths that do not come back to where they begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import isfinite

from penstock.annotate.records import Box, Line, Lines, Point
from penstock.annotate.shapes.kinds import bounds

_POINTS = 2  # at least


def around_lines(lines: Lines) -> Box:
    """Return the smallest box around polylines, of which there is at least one; it may have no area."""
    return bounds(point for line in lines for point in line)


def clip_lines(lines: Lines, width: float, height: float) -> Lines:
    """Return what of polylines lies in an image: a line that leaves it and comes back becomes several.

    What has no length is left out, points that stand twice in a row are one, and lines with a number that is
    not finite are none.
    """
    return tuple(piece for line in lines for piece in _pieces(line, width, height))


def _pieces(line: Line, width: float, height: float) -> Iterator[Line]:
    if not all(isfinite(x) and isfinite(y) for x, y in line):
        return
    piece: list[Point] = []
    for first, last in pairwise(line):
        inside = _inside(first, last, width, height)
        if inside is None:
            yield from _whole(piece)
            piece = []
            continue
        begin, end = inside
        if piece and piece[-1] != begin:
            yield from _whole(piece)
            piece = []
        piece += [begin, end] if not piece else [end]
    yield from _whole(piece)


def _whole(points: Iterable[Point]) -> Iterator[Line]:
    kept: list[Point] = []
    for point in points:
        if not kept or kept[-1] != point:
            kept.append(point)
    if len(kept) >= _POINTS:
        yield tuple(kept)


def _inside(first: Point, last: Point, width: float, height: float) -> tuple[Point, Point] | None:
    """Return what of an edge lies in an image (Liang and Barsky); None: nothing."""
    begin, end = 0.0, 1.0
    for axis, most in ((0, width), (1, height)):
        step = last[axis] - first[axis]
        for way, room in ((-step, first[axis]), (step, most - first[axis])):
            if not way:
                if room < 0:
                    return None
            elif way < 0:
                begin = max(begin, room / way)
            else:
                end = min(end, room / way)
    if begin > end:
        return None
    return _at(first, last, begin, width, height), _at(first, last, end, width, height)


def _at(first: Point, last: Point, share: float, width: float, height: float) -> Point:
    x, y = first
    if share:
        x, y = last if share == 1.0 else (a + (b - a) * share for a, b in zip(first, last, strict=True))
    # What is rounded may lie outside by next to nothing; and no -0.0.
    return (min(max(x, 0.0), width) + 0.0, min(max(y, 0.0), height) + 0.0)
