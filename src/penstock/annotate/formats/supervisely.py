"""Supervisely: a JSON file for each image, and one about all; pixels are whole, rectangles hold their ends.

Shapes are bitmaps: a polygon there is rounded to pixels and would not be the same.
"""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from math import ceil, floor
from pathlib import Path
from typing import Any

from penstock.annotate import rle
from penstock.annotate.extras import needed
from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_line, is_plain, keypoints_of, mask_in
from penstock.annotate.formats.reading import Unreadable, is_id, is_number, read_json
from penstock.annotate.formats.writing import number, write_json
from penstock.annotate.records import Point, Region
from penstock.annotate.rle import Runs

META = "meta.json"
FOLDER = "dataset/ann"
_COUNTS = {"rectangle": (2, 2), "point": (1, 1), "line": (2, 1 << 30)}  # points
_TAGS = {"region": "any_string", "score": "any_number", "text": "any_string", "track": "any_string"}


class Supervisely(Format):
    """Rectangles, bitmaps, lines and points, with tags."""

    name = "supervisely"
    says = frozenset({"shape", "lines", "holes", "parts", "keypoints", "score", "track", "text", "tags"})

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        labels = data.survey.labels
        classes = [
            {"title": label, "shape": "any", "color": "#3388FF", "geometry_config": {}} for label in labels
        ]
        tags = [{"name": name, "value_type": kind, "color": "#888888"} for name, kind in _TAGS.items()]
        write_json(folder / META, {"classes": classes, "tags": tags, "projectType": "images"})
        yield folder / META
        for shot in data.shots():
            path = folder / FOLDER / f"{shot.flat_name}.json"
            write_json(path, _document(shot, losses))
            yield path

    def picture(self, shot: Shot) -> str:
        return f"dataset/img/{shot.flat_name}"

    def faults(self, folder: Path) -> Iterator[Fault]:
        try:
            meta = read_json(folder, META)
            classes = {one["title"] for one in meta["classes"]}
            tags = {one["name"] for one in meta["tags"]}
        except Unreadable as unreadable:
            yield unreadable.fault
            return
        except (KeyError, TypeError):
            yield Fault(META, "", "it should have classes and tags")
            return
        for path in sorted((folder / FOLDER).glob("*.json")):
            name = f"{FOLDER}/{path.name}"
            try:
                document = read_json(folder, name)
            except Unreadable as unreadable:
                yield unreadable.fault
                continue
            yield from (Fault(name, where, what) for where, what in _document_faults(document, classes, tags))


def _document(shot: Shot, losses: Counter[str]) -> dict[str, Any]:
    for region in shot.drawable:
        boxed = is_plain(region) and not (is_line(region) and shot.holds_lines(region))
        rounded = sum(one != floor(one) for one in shot.clipped(region.box)) if boxed else 0
        losses["points of lines rounded to whole pixels"] += sum(map(len, shot.lines(region)))
        losses["numbers of boxes rounded to whole pixels, outwards"] += rounded
    # Labels of whole frames are classes here, and tags have names of their own.
    whole = [{"name": "text", "value": tag.label} for tag in shot.frame.labels]
    return {
        "description": "",
        "tags": whole,
        "size": {"height": shot.frame.h, "width": shot.frame.w},
        "objects": [one for region in shot.drawable for one in _objects(region, shot)],
    }


def _objects(region: Region, shot: Shot) -> Iterator[dict[str, Any]]:
    told = {
        "region": region.id,
        "score": None if region.score is None else number(region.score),
        "text": region.text,
        "track": region.track,
    }
    tags = [{"name": name, "value": value} for name, value in told.items() if value is not None]
    common = {"description": "", "classTitle": region.label, "tags": tags}
    runs, lines = None if is_plain(region) else mask_in(region, shot.frame), shot.lines(region)
    for line in lines:
        points = [_pixel(point, shot) for point in line]
        yield {**common, "geometryType": "line", "points": {"exterior": points, "interior": []}}
    if runs is None and not (lines and is_line(region)):
        left, top, right, bottom = shot.clipped(region.box)
        ends = [[floor(left), floor(top)], [ceil(right) - 1, ceil(bottom) - 1]]
        yield {**common, "geometryType": "rectangle", "points": {"exterior": ends, "interior": []}}
    elif runs is not None:
        yield {**common, "geometryType": "bitmap", "bitmap": _bitmap(runs)}
    for x, y, v in keypoints_of(region, shot.frame):
        if v:
            place = {"exterior": [_pixel((x, y), shot)], "interior": []}
            yield {**common, "geometryType": "point", "points": place}


def _pixel(point: Point, shot: Shot) -> list[int]:
    """Return the pixel that a point is in."""
    return [min(floor(point[0]), shot.frame.w - 1), min(floor(point[1]), shot.frame.h - 1)]


def _bitmap(runs: Runs) -> dict[str, Any]:
    import numpy as np

    images = needed("PIL.Image", "bitmaps")
    mask = rle.decode(runs)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    stream = io.BytesIO()
    images.fromarray(cut).save(stream, "PNG")
    data = base64.b64encode(zlib.compress(stream.getvalue())).decode("ascii")
    return {"data": data, "origin": [int(columns[0]), int(rows[0])]}


def _document_faults(document: Any, classes: set[str], tags: set[str]) -> Iterator[tuple[str, str]]:
    if not isinstance(document, dict) or not isinstance(document.get("objects"), list):
        yield "", "it should be an object with objects"
        return
    size = document.get("size") or {}
    if not is_id(size.get("width")) or not is_id(size.get("height")):
        yield "size", "width and height should be whole numbers from 1 on"
        return
    for place, one in enumerate(document["objects"]):
        where = f"objects[{place}]"
        if not isinstance(one, dict):
            yield where, "it is no object"
            continue
        if one.get("classTitle") not in classes:
            yield where, f"there is no class {one.get('classTitle')!r}"
        if {tag.get("name") for tag in one.get("tags", ())} - tags:
            yield where, "it has a tag that is none of the project's"
        if what := _shape_fault(one, size["width"], size["height"]):
            yield where, what


def _shape_fault(one: dict[str, Any], width: int, height: int) -> str:
    kind = one.get("geometryType")
    if kind == "bitmap":
        return _bitmap_fault(one.get("bitmap") or {}, width, height)
    points = (one.get("points") or {}).get("exterior")
    if (
        kind not in _COUNTS
        or not isinstance(points, list)
        or not _COUNTS[kind][0] <= len(points) <= _COUNTS[kind][1]
    ):
        return f"{kind!r} is none of the shapes written here, or its points are none"
    for x, y in points:
        if not (is_number(x) and is_number(y)) or x != int(x) or y != int(y):
            return "points should be whole pixels"
        if not (0 <= x < width and 0 <= y < height):
            return f"the pixel ({x}, {y}) is outside the image of {width} x {height}"
    if kind == "rectangle" and (points[1][0] < points[0][0] or points[1][1] < points[0][1]):
        return "its last pixels should not be before its first"
    return ""


def _bitmap_fault(bitmap: dict[str, Any], width: int, height: int) -> str:
    images = needed("PIL.Image", "bitmaps")
    try:
        left, top = bitmap["origin"]
        with images.open(
            io.BytesIO(zlib.decompress(base64.b64decode(bitmap["data"], validate=True)))
        ) as image:
            right, bottom = left + image.width, top + image.height
    except (KeyError, TypeError, ValueError, OSError, zlib.error, binascii.Error) as error:
        return f"its bitmap cannot be read: {error}"
    if left < 0 or top < 0 or right > width or bottom > height:
        return "its bitmap reaches outside the image"
    return ""
