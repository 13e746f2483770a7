"""What other tools write as COCO; ids are kept by those that keep attributes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.annotate import rle
from penstock.annotate.formats.reading import read_json
from penstock.annotate.records import Keypoint, Ring, Rle
from penstock.annotate.review.given import Drawn, Given
from penstock.annotate.shapes.kinds import around, bounds, rectangle

_NEAR = 0.02  # pixels


def read_coco(path: Path) -> Iterator[Given]:
    """Yield all pictures of the file; those without annotations are such in which nothing is.

    Raises:
        Unreadable: It is no JSON.
        ValueError: It is no file of this kind; also ``KeyError``, ``TypeError``.
    """
    document = read_json(path.parent, path.name)
    names = {one["id"]: one["name"] for one in document["categories"]}
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for one in document["annotations"]:
        annotations[one["image_id"]].append(one)
    for image in document["images"]:
        size = (image["width"], image["height"])
        regions = tuple(_drawn(one, names[one["category_id"]], size) for one in annotations[image["id"]])
        yield Given(image["file_name"], None, None, size, regions, None)


def _drawn(one: dict[str, Any], label: str, size: tuple[int, int]) -> Drawn:
    attributes = one.get("attributes") or {}
    region = attributes.get("region")
    left, top, width, height = one["bbox"]
    box = (float(left), float(top), float(left + width), float(top + height))
    plain = Drawn(region, label, box, kp=_keypoints(one), text=attributes.get("text"))
    segmentation = one.get("segmentation")
    if isinstance(segmentation, dict):
        runs = rle.read(segmentation)
        if (runs.width, runs.height) != size:
            raise ValueError(f"the mask of annotation {one.get('id')} is not of its image's size")
        return plain._replace(box=runs.box() or box, rle=Rle((runs.height, runs.width), runs.text))
    rings: list[Ring] = [_ring(flat) for flat in segmentation or ()]
    if not rings or (len(rings) == 1 and _is_box(rings[0], box)):
        return plain
    polys = tuple((ring,) for ring in rings)
    return plain._replace(box=around(polys), polys=polys)


def _ring(flat: list[float]) -> Ring:
    return tuple((float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True))


def _is_box(ring: Ring, box: tuple[float, float, float, float]) -> bool:
    if len(ring) != 4:
        return False
    apart = (abs(a - b) for a, b in zip(bounds(ring), box, strict=True))
    corners = {(round(x, 2), round(y, 2)) for x, y in rectangle(bounds(ring))}
    return max(apart) <= _NEAR and {(round(x, 2), round(y, 2)) for x, y in ring} == corners


def _keypoints(one: dict[str, Any]) -> tuple[Keypoint, ...] | None:
    flat = one.get("keypoints")
    if not flat:
        return None
    points = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return tuple((float(x), float(y), int(v)) for x, y, v in points)
