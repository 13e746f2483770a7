"""Polygons as masks: a pixel is inside if its centre is, and what two masks have in common."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from penstock.annotate.records import Part, Polys
from penstock.annotate.shapes.kinds import bounds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

    from penstock.annotate.shapes.kinds import Mask


def rasterise(polys: Polys, height: int, width: int) -> Mask:
    """Return the mask of polygons: what any part covers, its holes left out."""
    import numpy as np

    mask = np.zeros((height, width), dtype=bool)
    for part in polys:
        _fill(mask, part)
    return mask


def overlap(one: Mask, other: Mask) -> float:
    """Return how many pixels two masks of the same size share of all they have: 1.0 if both are empty."""
    import numpy as np

    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 1.0


def _fill(mask: Mask, part: Part) -> None:
    """Set the pixels whose centres have an odd number of edges to their left."""
    import numpy as np

    left, top, right, bottom = bounds(point for ring in part for point in ring)
    first, last = max(0, ceil(top - 0.5)), min(mask.shape[0], ceil(bottom - 0.5))
    start, end = max(0, ceil(left - 0.5)), min(mask.shape[1], ceil(right - 0.5))
    if first >= last or start >= end:
        return
    edges = np.concatenate([_edges(np.asarray(ring)) for ring in part])
    begin = np.clip(np.ceil(edges[:, 1] - 0.5), first, last).astype(np.int64)
    rows_of = np.clip(np.ceil(edges[:, 3] - 0.5), first, last).astype(np.int64) - begin
    which = np.repeat(np.arange(len(edges)), rows_of)
    rows = np.arange(len(which)) - np.repeat(np.cumsum(rows_of) - rows_of, rows_of) + begin[which]
    x1, y1, x2, y2 = edges[which].T
    crossing = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
    columns = np.clip(np.ceil(crossing - 0.5), start, end).astype(np.int64) - start
    cells = (rows - first) * (end - start + 1) + columns
    odd = np.bincount(cells, minlength=(last - first) * (end - start + 1)) & 1
    inside = np.bitwise_xor.accumulate(odd.reshape(last - first, -1).astype(np.uint8), axis=1)
    mask[first:last, start:end] |= inside[:, :-1].astype(bool)


def _edges(ring: Numbers) -> Numbers:
    """Return the edges of a ring that are not horizontal, each from its upper end to its lower."""
    import numpy as np

    ahead = np.roll(ring, -1, axis=0)
    down = ring[:, 1] < ahead[:, 1]
    edges = np.where(down[:, None], np.hstack([ring, ahead]), np.hstack([ahead, ring]))
    sloping: Numbers = edges[ring[:, 1] != ahead[:, 1]]
    return sloping
