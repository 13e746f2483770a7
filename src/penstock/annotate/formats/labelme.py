"""LabelMe: a JSON file for each image; the shapes of one thing share a group, so that its parts stay one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_line, is_plain, keypoints_of, rings_in
from penstock.annotate.formats.reading import Unreadable, box_fault, is_id, outside, read_json
from penstock.annotate.formats.writing import numbers, write_json
from penstock.annotate.records import Region

FOLDER = "annotations"
_VERSION = "5.5.0"  # of the tool, which asks for one
_POINTS = {"rectangle": (2, 2), "linestrip": (2, 1 << 30), "polygon": (3, 1 << 30), "point": (1, 1)}


class LabelMe(Format):
    """Boxes, polygons, lines and points."""

    name = "labelme"
    says = frozenset({"shape", "lines", "holes", "parts", "keypoints", "text", "tags"})

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        (folder / FOLDER).mkdir(exist_ok=True)
        for shot in data.shots():
            path = folder / FOLDER / f"{shot.flat}.json"
            write_json(path, _document(shot, losses))
            yield path

    def picture(self, shot: Shot) -> str:
        return f"images/{shot.flat_name}"

    def faults(self, folder: Path) -> Iterator[Fault]:
        if not (folder / FOLDER).is_dir():
            yield Fault(FOLDER, "", "it is not there")
        for path in sorted((folder / FOLDER).glob("*.json")):
            name = f"{FOLDER}/{path.name}"
            try:
                document = read_json(folder, name)
            except Unreadable as unreadable:
                yield unreadable.fault
                continue
            yield from (Fault(name, where, what) for where, what in _document_faults(document, path.stem))


def _document(shot: Shot, losses: Counter[str]) -> dict[str, Any]:
    shapes = [one for group, region in enumerate(shot.drawable, 1) for one in _shapes(region, group, shot)]
    for region in shot.drawable:
        hidden = sum(1 for point in keypoints_of(region, shot.frame) if point[2] == 1)
        losses["keypoints hidden, shown like the others"] += hidden
    losses["scores of labels of whole frames left out"] += sum(
        tag.score is not None for tag in shot.frame.labels
    )
    return {
        "version": _VERSION,
        "flags": {tag.label: True for tag in shot.frame.labels},
        "shapes": shapes,
        "imagePath": f"../images/{shot.flat_name}",
        "imageData": None,
        "imageHeight": shot.frame.h,
        "imageWidth": shot.frame.w,
    }


def _shapes(region: Region, group: int, shot: Shot) -> Iterator[dict[str, Any]]:
    points = [(x, y) for x, y, v in keypoints_of(region, shot.frame) if v]
    rings = () if is_plain(region) else rings_in(region, shot.frame)
    lines = shot.lines(region)
    several = len(rings) + len(points) + len(lines) > 1 or bool(points)
    common = {"label": region.label, "group_id": group if several else None, "description": region.text or ""}
    if not rings and not (lines and is_line(region)):
        left, top, right, bottom = shot.clipped(region.box)
        yield _shape("rectangle", [(left, top), (right, bottom)], common)
    for ring in rings:
        yield _shape("polygon", list(ring), common)
    for line in lines:
        yield _shape("linestrip", list(line), common)
    for point in points:
        yield _shape("point", [point], common)


def _shape(kind: str, points: list[tuple[float, float]], common: dict[str, Any]) -> dict[str, Any]:
    return {
        **common,
        "points": [numbers(point) for point in points],
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }


def _document_faults(document: Any, stem: str) -> Iterator[tuple[str, str]]:
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        yield "", "it should be an object with shapes"
        return
    width, height = document.get("imageWidth"), document.get("imageHeight")
    if not is_id(width) or not is_id(height):
        yield "", "imageWidth and imageHeight should be whole numbers from 1 on"
        return
    if Path(str(document.get("imagePath"))).stem != stem:
        yield "", "imagePath is not that of the file's image"
    for place, shape in enumerate(document["shapes"]):
        if what := _shape_fault(shape, width, height):
            yield f"shapes[{place}]", what


def _shape_fault(shape: Any, width: int, height: int) -> str:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
        return "it has no label"
    if shape.get("group_id") is not None and not is_id(shape["group_id"]):
        return "its group_id should be a whole number from 1 on, or null"
    kind, points = shape.get("shape_type"), shape.get("points")
    least, most = _POINTS.get(str(kind), (0, 0))
    if not isinstance(points, list) or not least <= len(points) <= most:
        return f"{kind!r} is none of the shapes written here, or has too many points or too few"
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        return "a point should be two numbers"
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return box_fault(left, top, right, bottom, width, height)
    return outside(((x, y) for x, y in points), width, height)
