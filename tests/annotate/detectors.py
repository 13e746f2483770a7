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


@rt.command("reds")
def reds(images: list[Picture]) -> list[dict[str, Any]]:
    """Find what ``red`` finds, in several frames."""
    return [red(image) for image in images]


@rt.command("crowd")
async def crowd(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Find something else in a frame if it comes with others."""
    first, last = images[0]["frame"], images[-1]["frame"]
    found = [
        {"label": f"{first}-{last}", "score": 0.9, "box": [at, 0, at + 20, 20]} for at in range(len(images))
    ]
    return {"answers": [{"regions": [one]} for one in found]}


@rt.command("some")
async def some(images: list[dict[str, Any]], refuse: int = 6, how: str = "fail") -> Any:
    """Find nothing, and do badly if one frame is among them."""
    answers: list[Any] = [{"regions": []} for _ in images]
    if refuse not in [image["frame"] for image in images]:
        return answers
    if how == "fail":
        raise CommandError("not these")
    if how == "garbage":
        answers[[image["frame"] for image in images].index(refuse)] = {"regions": 3}
        return answers
    return {"short": answers[1:], "long": [*answers, answers[0]], "none": {"regions": []}}[how]
