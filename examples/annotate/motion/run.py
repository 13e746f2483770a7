"""A project: finds what moves.  It learns the background as it goes: it is asked about one frame at a time.

penstock annotate FILM --model examples/annotate/motion --command moving --window 1 --track
"""

from __future__ import annotations

import numpy as np

from penstock import Runtime
from penstock.annotate import Picture

rt = Runtime("manifest.yml")
backgrounds: dict[str, np.ndarray] = {}


@rt.command("moving", concurrency=1)
def moving(image: Picture, change: float = 40.0, learn: float = 0.05, cell: int = 8) -> dict[str, object]:
    """Return boxes around neighbouring cells of so many pixels that differ from the background."""
    grey = image.array().mean(axis=2)
    if image.frame == 0 or image.name not in backgrounds:
        backgrounds[image.name] = grey
        return {"regions": []}
    background = backgrounds[image.name]
    rows, columns = (side // cell * cell for side in grey.shape)
    moved = np.abs(grey - background)[:rows, :columns]
    cells = moved.reshape(rows // cell, cell, columns // cell, cell).mean(axis=(1, 3)) > change
    backgrounds[image.name] = background + learn * (grey - background)
    boxes = [[side * cell for side in box] for box in groups(cells)]
    return {"regions": [{"label": "moving", "box": box} for box in boxes]}


def groups(cells: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return the boxes around cells that touch, from the top left."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(cells), strict=True)}
    found = []
    while left:
        seen = [min(left)]
        left.discard(seen[0])
        for row, column in seen:
            near = {(row + down, column + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= near
            seen.extend(sorted(near))
        rows, columns = [row for row, _ in seen], [column for _, column in seen]
        found.append((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    return found
