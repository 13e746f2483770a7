"""Masks as polygons along the edges of their pixels: exact, valid, holes and all.

Polygons through the centres of pixels, as most tools make them, lose half a pixel all around: an object of
one pixel vanishes, a thin one becomes a line.  Along the edges nothing is lost; rasterising gives the mask
back.

Every corner of the outline ends one horizontal and one vertical edge.  On each grid line the corners, in
order, are the ends of its edges by twos; so sorting them by rows and by columns gives both ends of each edge,
and following the edges in turn gives the rings.  Where two pixels touch at a corner only, that corner counts
twice, once for each, so that parts which only touch stay apart; a ring that comes by such a corner twice is
two rings.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from penstock.annotate.records import Polys
from penstock.annotate.shapes.kinds import ring_area

if TYPE_CHECKING:
    from penstock.annotate.shapes.kinds import Mask

Loop = list[tuple[int, int]]


def outline(mask: Mask) -> Polys:
    """Return the polygons of a mask, an array of rows and columns that is true inside.

    One for each part whose pixels share edges, in the order of their topmost, then leftmost corners.  Each is
    valid, its points lie on the corners of pixels, and rasterising them gives the mask back.
    """
    import numpy as np

    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return ()
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(bool, copy=False), 1)
    loops = sorted(_simple(_traced(padded)), key=lambda loop: (loop[0][1], loop[0][0], ring_area(loop) < 0))
    return tuple(
        tuple(tuple((float(x + left), float(y + top)) for x, y in loops[one]) for one in part)
        for part in _parts(loops, padded)
    )


def _traced(padded: Mask) -> Iterator[Loop]:
    """Yield the rings of a mask with a margin, the inside on the right; some come by a corner twice."""
    import numpy as np

    above, below = padded[:-1, :-1] ^ padded[:-1, 1:], padded[1:, :-1] ^ padded[1:, 1:]
    twice = above & below & (padded[:-1, :-1] ^ padded[1:, :-1])
    ys, xs = np.nonzero((above ^ below) | twice)
    double = twice[ys, xs]
    ys, xs = np.repeat(ys, 1 + double), np.repeat(xs, 1 + double)
    number = np.arange(len(xs))
    # Of a corner that counts twice the one whose edge goes up comes first in its column.
    falling = twice[ys, xs] & padded[ys, xs + 1]
    order = np.lexsort((np.where(falling, -number, number), ys, xs))
    vertical = np.empty_like(order)
    vertical[order[0::2]], vertical[order[1::2]] = order[1::2], order[0::2]
    points = list(zip(xs.tolist(), ys.tolist(), strict=True))
    yield from _follow(points, vertical.tolist(), padded[ys + 1, xs + 1].tolist())


def _follow(points: Loop, vertical: list[int], inside: list[bool]) -> Iterator[Loop]:
    """Yield rings: along a row to the neighbour in the order of corners, along a column to ``vertical``."""
    seen = bytearray(len(points))
    for first in range(len(points)):
        if seen[first]:
            continue
        loop: Loop = []
        at, by_row = first, inside[first]
        while not loop or at != first:
            other = at ^ 1 if by_row else vertical[at]
            seen[at] = seen[other] = 1
            loop += points[at], points[other]
            at = vertical[other] if by_row else other ^ 1
        yield loop


def _simple(loops: Iterator[Loop]) -> Iterator[Loop]:
    """Yield rings that come by no corner twice, from their topmost, then leftmost corner on."""
    for loop in loops:
        if len(set(loop)) == len(loop):
            yield loop  # these are followed from there
        else:
            yield from map(_from_the_top, _taken_apart(loop))


def _taken_apart(loop: Loop) -> Iterator[Loop]:
    path: Loop = []
    place: dict[tuple[int, int], int] = {}
    for point in loop:
        if (since := place.get(point)) is not None:
            yield path[since:]
            for gone in path[since:]:
                del place[gone]
            del path[since:]
        place[point] = len(path)
        path.append(point)
    yield path


def _from_the_top(loop: Loop) -> Loop:
    start = min(range(len(loop)), key=lambda at: (loop[at][1], loop[at][0]))
    return loop[start:] + loop[:start]


def _parts(loops: list[Loop], padded: Mask) -> list[list[int]]:
    """Return the numbers of the rings of each part, its outside first."""
    holes = {number for number, loop in enumerate(loops) if ring_area(loop) < 0}
    parts = {number: [number] for number in range(len(loops)) if number not in holes}
    rising = _rising(loops) if holes else {}
    outside = {number: number for number in parts}
    for number in sorted(holes):
        # The pixel above a hole is in the same part, and so is the ring to its left, which begins higher.
        x, y = loops[number][0]
        run = padded[y, x + 1 :: -1]
        start = x + 1 - int(run.argmin())
        neighbours = rising[start]
        neighbour = neighbours[bisect_right(neighbours, (y - 1, len(loops))) - 1][1]
        outside[number] = outside[neighbour]
        parts[outside[number]].append(number)
    return list(parts.values())


def _rising(loops: list[Loop]) -> dict[int, list[tuple[int, int]]]:
    """Return the edges with the inside to their right, by column: where they begin, and whose they are."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, loop in enumerate(loops):
        last: Any = loop[-1]
        for point in loop:
            if point[1] < last[1]:
                found[point[0]].append((point[1], number))
            last = point
    for edges in found.values():
        edges.sort()
    return found
