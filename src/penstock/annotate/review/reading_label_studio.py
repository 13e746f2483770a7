"""What Label Studio exports as JSON: tasks with the annotations that people made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import cos, radians, sin
from pathlib import Path
from typing import Any

from penstock.annotate import rle
from penstock.annotate.formats.brush import unpack_mask
from penstock.annotate.formats.reading import read_json
from penstock.annotate.records import Keypoint, Rle
from penstock.annotate.review.given import Drawn, Given, from_lines, from_polys, from_rotated, with_lines

_SEEN = 2


def read_label_studio(path: Path) -> Iterator[Given]:
    """Yield the pictures that somebody annotated; of several annotations of one, what the last says.

    Raises:
        Unreadable: It is no JSON.
        ValueError: It is no file of this kind; also ``KeyError``, ``TypeError``.
    """
    for task in read_json(path.parent, path.name):
        made = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
        if not made:
            continue
        facts, results = task["data"], made[-1]["result"]
        sizes = {
            (one["original_width"], one["original_height"]) for one in results if "original_width" in one
        }
        points = _keypoints(results)
        regions = with_lines(_drawn(one, points) for one in results if one["type"] in _SHAPES)
        whole = [one["value"]["choices"] for one in results if one["type"] == "choices"]
        tags = tuple(tag for some in whole for tag in some)
        size = next(iter(sizes), (0, 0))
        yield Given(
            str(facts["image"]),
            facts.get("source"),
            facts.get("frame"),
            size,
            tuple(regions),
            tags,
            lines=True,
        )


def _keypoints(results: list[dict[str, Any]]) -> dict[str, dict[int, Keypoint]]:
    """Return keypoints by the region they belong to, and by their number there."""
    found: dict[str, dict[int, Keypoint]] = {}
    for one in results:
        if one["type"] == "keypointlabels" and one.get("parentID"):
            mine = found.setdefault(one["parentID"], {})
            ending = one["id"].rpartition("-")[2]
            place = int(ending) if ending.isdigit() and ending.isascii() else len(mine)
            x, y = _at(one, one["value"]["x"], one["value"]["y"])
            mine[place] = (x, y, _SEEN)
    return found


def _drawn(one: dict[str, Any], points: dict[str, dict[int, Keypoint]]) -> Drawn:
    found = _SHAPES[one["type"]](one, str(one["value"][one["type"]][0]))
    mine = points.get(one["id"])
    if not mine:
        return found
    absent: Keypoint = (0.0, 0.0, 0)
    return found._replace(kp=tuple(mine.get(place, absent) for place in range(max(mine) + 1)))


def _at(one: dict[str, Any], x: float, y: float) -> tuple[float, float]:
    return (x * one["original_width"] / 100, y * one["original_height"] / 100)


def _rectangle(one: dict[str, Any], label: str) -> Drawn:
    size = (one["original_width"], one["original_height"])
    return rectangle_in(one["value"], size, one["id"], label)


def rectangle_in(value: Mapping[str, Any], size: tuple[int, int], region: str | None, label: str) -> Drawn:
    """Return a rectangle of a picture of this width and height, where percents say."""
    x, y = value["x"] * size[0] / 100, value["y"] * size[1] / 100
    width, height = value["width"] * size[0] / 100, value["height"] * size[1] / 100
    turn = float(value.get("rotation") or 0)
    if not turn:
        return Drawn(region, label, (x, y, x + width, y + height))
    # A rotation there is about what was the top-left corner.
    across, along = cos(radians(turn)), sin(radians(turn))
    middle = (x + (width * across - height * along) / 2, y + (width * along + height * across) / 2)
    return from_rotated(region, label, (*middle, width, height, turn - 360 if turn > 180 else turn))


def _polygon(one: dict[str, Any], label: str) -> Drawn:
    return from_polys(one["id"], label, ((tuple(_at(one, x, y) for x, y in one["value"]["points"]),),))


def _brush(one: dict[str, Any], label: str) -> Drawn:
    height, width = one["original_height"], one["original_width"]
    runs = rle.encode(unpack_mask(bytes(one["value"]["rle"]), height, width))
    box = runs.box()
    if box is None:
        raise ValueError(f"the brush {one['id']} is empty")
    return Drawn(one["id"], label, box, rle=Rle((height, width), runs.text))


def _vector(one: dict[str, Any], label: str) -> Drawn:
    line = tuple(_at(one, vertex["x"], vertex["y"]) for vertex in one["value"]["vertices"])
    # Each further line of a region has its number behind the id.
    return from_lines(one["id"].partition(".")[0], label, (line,))


_SHAPES = {
    "vectorlabels": _vector,
    "rectanglelabels": _rectangle,
    "polygonlabels": _polygon,
    "brushlabels": _brush,
}
