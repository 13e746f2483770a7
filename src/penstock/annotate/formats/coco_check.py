"""What no well-known loader of COCO refuses all of, refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from penstock.annotate import rle
from penstock.annotate.formats.base import Fault
from penstock.annotate.formats.reading import (
    Unreadable,
    box_fault,
    is_id,
    is_number,
    outside,
    piece,
    read_pieces,
)

_POLYGON = 6  # numbers; of four the reference implementation thinks that they are a box


class _Document(msgspec.Struct):
    images: list[Any]
    categories: list[Any]
    annotations: list[msgspec.Raw]


class _Known(NamedTuple):
    """The images by id, as width and height, and the categories by id, as their number of keypoints."""

    images: Mapping[int, tuple[int, int]]
    categories: Mapping[int, int]


def check_dataset(folder: Path, name: str) -> Iterator[Fault]:
    """Yield what is wrong with a data set."""
    try:
        document = read_pieces(folder, name, _Document)
    except Unreadable as unreadable:
        yield unreadable.fault
        return
    faults, known = _read_head(document, name)
    yield from faults
    ids: set[int] = set()
    for place, annotation in enumerate(map(piece, document.annotations)):
        where = f"annotations[{place}]"
        if not isinstance(annotation, dict):
            yield Fault(name, where, "it is no object")
            continue
        if not is_id(annotation.get("id")):
            yield Fault(name, where, f"its id {annotation.get('id')!r} should be a whole number from 1 on")
        elif annotation["id"] in ids:
            yield Fault(name, where, f"another annotation has the id {annotation['id']} too")
        else:
            ids.add(annotation["id"])
        yield from (Fault(name, where, what) for what in _annotation_faults(annotation, known))


def check_results(folder: Path, name: str, results: str) -> Iterator[Fault]:
    """Yield what is wrong with results, and with the images they refer to."""
    try:
        document = read_pieces(folder, name, _Document)
        found = read_pieces(folder, results, list[msgspec.Raw])
    except Unreadable as unreadable:
        yield unreadable.fault
        return
    faults, known = _read_head(document, name)
    yield from faults
    for place, result in enumerate(map(piece, found)):
        where = f"[{place}]"
        if not isinstance(result, dict):
            yield Fault(results, where, "it is no object")
            continue
        score = result.get("score")
        if not is_number(score) or not 0 <= score <= 1:
            yield Fault(results, where, f"its score {score!r} should be from 0 to 1")
        yield from (
            Fault(results, where, what) for what in _shape_faults(result, known, "segmentation" in result)
        )


def _read_head(document: _Document, name: str) -> tuple[list[Fault], _Known]:
    faults: list[Fault] = []
    images: dict[int, tuple[int, int]] = {}
    categories: dict[int, int] = {}
    names: set[str] = set()
    for place, image in enumerate(document.images):
        what = _entry_fault(image, "file_name", images, names)
        if not what and not (is_id(image.get("width")) and is_id(image.get("height"))):
            what = "its width and height should be whole numbers from 1 on"
        if what:
            faults.append(Fault(name, f"images[{place}]", what))
        else:
            images[image["id"]] = (image["width"], image["height"])
    labels: set[str] = set()
    for place, category in enumerate(document.categories):
        if what := _entry_fault(category, "name", categories, labels):
            faults.append(Fault(name, f"categories[{place}]", what))
        else:
            categories[category["id"]] = len(category.get("keypoints", ()))
    return faults, _Known(images, categories)


def _entry_fault(entry: Any, key: str, ids: Mapping[int, Any], names: set[str]) -> str:
    if not isinstance(entry, dict) or not is_id(entry.get("id")):
        return "its id should be a whole number from 1 on"
    if entry["id"] in ids:
        return f"the id {entry['id']} stands twice"
    named = entry.get(key)
    if not isinstance(named, str) or not named:
        return f"{key} should be text"
    if named in names:
        return f"the {key} {named!r} stands twice"
    names.add(named)
    return ""


def _annotation_faults(annotation: dict[str, Any], known: _Known) -> Iterator[str]:
    if annotation.get("iscrowd") not in (0, 1) or isinstance(annotation.get("iscrowd"), bool):
        yield "iscrowd should be 0 or 1"
    if not is_number(annotation.get("area")) or annotation["area"] <= 0:
        yield "its area should be a number above 0"
    if "score" in annotation and not is_number(annotation["score"]):
        yield "its score should be a number"
    yield from _shape_faults(annotation, known, True)
    count = known.categories.get(annotation.get("category_id", 0), 0)
    if "keypoints" in annotation:
        yield from _keypoint_faults(annotation, count, known.images.get(annotation.get("image_id", 0)))


def _shape_faults(annotation: dict[str, Any], known: _Known, segmented: bool) -> Iterator[str]:
    category, image = annotation.get("category_id"), annotation.get("image_id")
    if not is_id(category) or category not in known.categories:
        yield f"there is no category {category!r}"
    if not is_id(image) or image not in known.images:
        yield f"there is no image {image!r}"
        return
    size = known.images[image]
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        yield "bbox should be four numbers"
    elif what := box_fault(box[0], box[1], box[0] + box[2], box[1] + box[3], *size):
        yield what
    if segmented:
        yield from _segmentation_faults(annotation.get("segmentation"), size)


def _segmentation_faults(segmentation: Any, size: tuple[int, int]) -> Iterator[str]:
    if isinstance(segmentation, dict):
        try:
            runs = rle.read(segmentation)
        except ValueError as error:
            yield str(error)
            return
        if (runs.width, runs.height) != size:
            yield f"its mask is {runs.width} x {runs.height}, its image {size[0]} x {size[1]}"
        elif not runs.area:
            yield "its mask is empty"
        return
    if not isinstance(segmentation, list) or not segmentation:
        yield "its segmentation should be a mask or polygons, one at least"
        return
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < _POLYGON or len(polygon) % 2:
            yield "a polygon should be six numbers or more, by twos"
        elif what := outside(zip(polygon[::2], polygon[1::2], strict=True), *size):
            yield what


def _keypoint_faults(annotation: dict[str, Any], count: int, size: tuple[int, int] | None) -> Iterator[str]:
    flat = annotation["keypoints"]
    if not isinstance(flat, list) or len(flat) != 3 * count:
        yield f"keypoints should be {3 * count} numbers, as its category has {count} keypoints"
        return
    points = list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    if any(isinstance(point[2], bool) or point[2] not in (0, 1, 2) for point in points):
        yield "the third number of a keypoint should be 0, 1 or 2"
    elif annotation.get("num_keypoints") != sum(1 for point in points if point[2]):
        yield "num_keypoints is not how many keypoints there are"
    if size and (what := outside(((x, y) for x, y, v in points if v), *size)):
        yield what
