"""Datumaro's own JSON: every shape with its attributes; one in several parts or with holes as its mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from penstock.annotate import rle
from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_line, is_plain, keypoints_of, mask_in, polys_in, rotated_of
from penstock.annotate.formats.reading import Unreadable, box_fault, is_id, outside, piece, read_pieces
from penstock.annotate.formats.writing import number, numbers, opened, write_members
from penstock.annotate.records import Region
from penstock.annotate.shapes.kinds import rectangle

FILE = "annotations/train.json"
_IMAGES = 2  # what the format calls a data set of images
_POLYGON, _LINE = 6, 4  # numbers


class _Document(msgspec.Struct):
    categories: dict[str, Any]
    items: list[msgspec.Raw]


class Datumaro(Format):
    """Objects in images, and labels of whole ones."""

    name = "datumaro"
    says = frozenset(
        {
            "shape",
            "lines",
            "holes",
            "parts",
            "keypoints",
            "score",
            "track",
            "text",
            "attributes",
            "origin",
            "tags",
        }
    )

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        labels = {label: place for place, label in enumerate(data.survey.labels)}
        names = [{"name": label, "parent": "", "attributes": []} for label in labels]
        points = [
            {"label_id": labels[label], "labels": [str(place) for place in range(1, count + 1)], "joints": []}
            for label, count in data.survey.keypoints.items()
        ]
        head = {
            "dm_format_version": "1.0",
            "media_type": _IMAGES,
            "infos": {},
            "categories": {
                "label": {"labels": names, "label_groups": [], "attributes": []},
                **({"points": {"items": points, "attributes": []}} if points else {}),
            },
            "items": (_item(shot, labels) for shot in data.shots()),
        }
        with opened(folder / FILE) as file:
            write_members(file, head)
        yield folder / FILE

    def faults(self, folder: Path) -> Iterator[Fault]:
        try:
            document = read_pieces(folder, FILE, _Document)
            labels = len(document.categories["label"]["labels"])
        except Unreadable as unreadable:
            yield unreadable.fault
            return
        except (KeyError, TypeError):
            yield Fault(FILE, "", "it should have categories with labels")
            return
        seen: set[str] = set()
        for place, item in enumerate(map(piece, document.items)):
            where = f"items[{place}]"
            if not isinstance(item, dict) or not isinstance(item.get("id"), str) or item["id"] in seen:
                yield Fault(FILE, where, "its id should be text, and its own")
                continue
            seen.add(item["id"])
            yield from (Fault(FILE, where, what) for what in _item_faults(item, labels))

    def picture(self, shot: Shot) -> str:
        return f"images/train/{shot.file_name}"


def _item(shot: Shot, labels: dict[str, int]) -> dict[str, Any]:
    tags = [
        {
            "id": 0,
            "type": "label",
            "attributes": {} if tag.score is None else {"score": number(tag.score)},
            "group": 0,
            "label_id": labels[tag.label],
        }
        for tag in shot.frame.labels
    ]
    found = [
        one for group, region in enumerate(shot.drawable, 1) for one in _forms(region, group, shot, labels)
    ]
    return {
        "id": shot.stem,
        "annotations": [{**one, "id": place} for place, one in enumerate([*tags, *found], 1)],
        "attr": {"frame": shot.frame.frame},
        "image": {"path": shot.file_name, "size": [shot.frame.h, shot.frame.w]},
    }


def _forms(region: Region, group: int, shot: Shot, labels: dict[str, int]) -> Iterator[dict[str, Any]]:
    known = {"score": region.score, "track_id": region.track, "text": region.text}
    attributes = {
        **region.attrs,
        **{name: value for name, value in known.items() if value is not None},
        "source": region.src,
        "region": region.id,
    }
    base = {"attributes": attributes, "group": group, "label_id": labels[region.label], "z_order": 0}
    lines = shot.lines(region)
    if not (lines and is_line(region)):
        yield {**base, **_shape(region, shot, attributes)}
    for line in lines:
        yield {**base, "type": "polyline", "points": numbers(one for point in line for one in point)}
    if region.kp:
        seen = keypoints_of(region, shot.frame)
        points = numbers(one for x, y, _ in seen for one in (x, y))
        # There, 0 is absent, 1 hidden and 2 visible.
        yield {**base, "type": "points", "points": points, "visibility": [point[2] for point in seen]}


def _shape(region: Region, shot: Shot, attributes: dict[str, Any]) -> dict[str, Any]:
    if is_plain(region):
        left, top, right, bottom = shot.clipped(region.box)
        return {"type": "bbox", "bbox": numbers((left, top, right - left, bottom - top))}
    polys = polys_in(region, shot.frame)
    if (region.rle and not region.polys) or len(polys) > 1 or len(polys[0]) > 1:
        if (runs := mask_in(region, shot.frame)) is not None:
            return {"type": "mask", "rle": runs.as_json()}
        polys = ((rectangle(shot.clipped(region.box)),),)
    if region.obb and not region.polys:
        attributes["rotation"] = number(rotated_of(region)[4])
    return {"type": "polygon", "points": numbers(one for point in polys[0][0] for one in point)}


def _item_faults(item: dict[str, Any], labels: int) -> Iterator[str]:
    image = item.get("image")
    size = image.get("size") if isinstance(image, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(map(is_id, size)):
        yield "its image should have a size, height and width"
        return
    ids: set[int] = set()
    for place, annotation in enumerate(item.get("annotations") or ()):
        where = f"annotation {place}"
        if annotation.get("id") in ids:
            yield f"{where}: another has the id {annotation['id']} too"
        ids.add(annotation.get("id"))
        label = annotation.get("label_id")
        if not isinstance(label, int) or not 0 <= label < labels:
            yield f"{where}: there is no label {label!r}"
        if what := _shape_fault(annotation, size[1], size[0]):
            yield f"{where}: {what}"


def _shape_fault(annotation: dict[str, Any], width: int, height: int) -> str:
    kind, points = annotation.get("type"), annotation.get("points", [])
    if kind == "label":
        return ""
    if kind == "bbox":
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            return "bbox should be four numbers"
        return box_fault(box[0], box[1], box[0] + box[2], box[1] + box[3], width, height)
    if kind == "mask":
        try:
            runs = rle.read(annotation.get("rle"))
        except ValueError as error:
            return str(error)
        return "" if (runs.width, runs.height) == (width, height) else "its mask is not of its image's size"
    if kind not in ("polygon", "polyline", "points") or not isinstance(points, list) or len(points) % 2:
        return f"{kind!r} is none of the types written here, or its points are none"
    if kind == "polygon" and len(points) < _POLYGON:
        return "a polygon has three points at least"
    if kind == "polyline" and len(points) < _LINE:
        return "a polyline has two points at least"
    if kind == "points" and len(annotation.get("visibility", ())) * 2 != len(points):
        return "every point should have its visibility"
    return outside(zip(points[::2], points[1::2], strict=True), width, height)
