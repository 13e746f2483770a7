"""A contact sheet: some frames of all files, small, with what was found in them."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from pathlib import Path

from penstock.annotate.extras import needed
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.looks.drawing import draw
from penstock.annotate.looks.pictures import by_number, pictures
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.media.sources import Media

_GAP = 4  # pixels


async def write_sheet(
    data: Dataset, media: Iterable[Media], path: Path, *, columns: int = 4, width: int = 320, most: int = 24
) -> Path:
    """Write a PNG of frames evenly chosen among those that were looked at.

    Args:
        data: The annotations.
        media: The files they are of.
        path: Where to.
        columns: How many frames stand side by side.
        width: Of each, in pixels.
        most: How many frames there are at most.

    Raises:
        MediaError: A file cannot be read, or is not the one that was annotated.
    """
    images = needed("PIL.Image", "a contact sheet")
    known = [(one, by_number(data, one)) for one in media]
    places = [(one.name, number) for one, frames in known for number in frames]
    step = max(1, ceil(len(places) / most))
    chosen = set(places[::step])
    cells = []
    for one, frames in known:
        numbers = tuple(number for number in frames if (one.name, number) in chosen)
        if not numbers:
            continue
        async for place, image in pictures(one, Sampling(frames=numbers)):
            small = image.resize((width, max(1, round(image.height * width / image.width))))
            cells.append(draw(small, frames[place.frame]))
    rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    across = min(columns, max(len(cells), 1))
    sheet = images.new(
        "RGB", (across * (width + _GAP) + _GAP, sum(heights) + _GAP * (len(rows) + 1)), (24, 24, 24)
    )
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (_GAP + column * (width + _GAP), top))
        top += height + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path
