"""Commands that the tests annotate with."""

from __future__ import annotations

from typing import Any

from penstock import CommandError, Runtime
from penstock.annotate.picture import Picture

rt = Runtime()


@rt.command("red")
def red(image: Picture) -> dict[str, Any]:
    """Find the square of ``films``, and a spot that is there in two of three frames."""
    import numpy as np

    pixels = image.array().astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 180) & (pixels[..., 1] < 90) & (pixels[..., 2] < 90))
    found = []
    if len(rows):
        box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        found.append({"label": "square", "score": 0.9, "box": box})
    if image.frame % 3:
        found.append({"label": "spot", "score": 0.5, "box": [10, 10, 20.5, 20]})
    return {"regions": [*found, {"label": "low", "score": 0.1, "box": [0, 0, 5, 5]}]}


@rt.command("ten")
async def ten(image: dict[str, Any]) -> dict[str, Any]:
    """Find ten boxes, at once."""
    return {"regions": [{"label": "x", "score": 0.9, "box": [n, n, n + 20, n + 20]} for n in range(10)]}


@rt.command("picky")
async def picky(image: dict[str, Any], refuse: int = 3, how: str = "fail") -> dict[str, Any]:
    """Find nothing, and fail on one frame."""
    if image["frame"] == refuse and how == "fail":
        raise CommandError("not this one")
    if image["frame"] == refuse:
        return {"regions": [{"label": "x", "box": [1, 2, 3]}]}
    return {"regions": []}
