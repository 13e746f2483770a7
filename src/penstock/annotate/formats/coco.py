"""COCO: objects as polygons or as masks, and the results that its evaluation reads.

Polygons of one annotation cover what any of them does, so a hole written as a polygon would be filled; a
shape with holes is written as its mask.  That mask is no crowd, which evaluation would ignore.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.coco_check import check_dataset, check_results
from penstock.annotate.formats.dataset import Dataset, Shot, is_still
from penstock.annotate.formats.geometry import area_in, is_plain, keypoints_of, mask_in, polys_in
from penstock.annotate.formats.writing import number, numbers, opened, write_list, write_members
from penstock.annotate.records import Region

FILE = "annotations/instances_train.json"
RESULTS = "results.json"
_SAYS = frozenset(
    {"shape", "rotated", "holes", "parts", "keypoints", "score", "track", "text", "attributes", "origin"}
)


class Coco(Format):
    """Objects in images, as polygons where they have no holes."""

    name = "coco"
    says = _SAYS
    masks: ClassVar[bool] = False

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        with opened(folder / FILE) as file:
            write_members(file, {**head(data), "annotations": self._annotations(data)})
        yield folder / FILE

    def faults(self, folder: Path) -> Iterator[Fault]:
        return check_dataset(folder, FILE)

    def picture(self, shot: Shot) -> str:
        return f"images/train/{shot.file_name}"

    def _annotations(self, data: Dataset) -> Iterator[dict[str, Any]]:
        categories = {label: place for place, label in enumerate(data.survey.labels, 1)}
        pairs = ((shot, region) for shot in data.shots() for region in shot.regions)
        for place, (shot, region) in enumerate(pairs, 1):
            found = {"id": place, "image_id": shot.number, "category_id": categories[region.label]}
            keypoints = _keypoints(region, shot, data.survey.keypoints.get(region.label, 0))
            yield {**found, **_shape(region, shot, self.masks), **keypoints, **_facts(region)}


class CocoRle(Coco):
    """Objects in images, their shapes as masks."""

    name = "coco-rle"
    masks = True


class CocoResults(Format):
    """What a model found, in the form in which evaluation reads it, and the images it refers to."""

    name = "coco-results"
    says = _SAYS - {"track", "text", "attributes", "origin", "keypoints"}

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        with opened(folder / FILE) as file:
            write_members(file, {**head(data), "annotations": iter(())})
        yield folder / FILE
        with opened(folder / RESULTS) as file:
            write_list(file, self._results(data, losses))
            file.write("\n")
        yield folder / RESULTS

    def faults(self, folder: Path) -> Iterator[Fault]:
        return check_results(folder, FILE, RESULTS)

    def _results(self, data: Dataset, losses: Counter[str]) -> Iterator[dict[str, Any]]:
        categories = {label: place for place, label in enumerate(data.survey.labels, 1)}
        for shot in data.shots():
            for region in shot.regions:
                if region.score is None:
                    losses["regions without a score, written with 1"] += 1
                score = 1 if region.score is None else number(region.score)
                found = {"image_id": shot.number, "category_id": categories[region.label], "score": score}
                shape: dict[str, Any] = {"bbox": bbox(region, shot)}
                runs = None if is_plain(region) else mask_in(region, shot.frame)
                if runs is not None:
                    shape["segmentation"] = runs.as_json()
                yield {**found, **shape}


def head(data: Dataset) -> dict[str, Any]:
    """Return what stands before the annotations."""
    survey = data.survey
    categories = [
        {"id": place, "name": label, "supercategory": "", **_skeleton(survey.keypoints.get(label, 0))}
        for place, label in enumerate(survey.labels, 1)
    ]
    return {
        "info": {"description": data.model, "version": "1.0"},
        "licenses": [],
        "categories": categories,
        "images": (_image(shot) for shot in data.shots()),
    }


def bbox(region: Region, shot: Shot) -> list[int | float]:
    """Return a region's box as COCO has it: left, top, width, height."""
    left, top, right, bottom = shot.clipped(region.box)
    return numbers((left, top, right - left, bottom - top))


def _image(shot: Shot) -> dict[str, Any]:
    frame = shot.frame
    found = {"id": shot.number, "file_name": shot.file_name, "width": frame.w, "height": frame.h}
    if is_still(shot.source):
        return found
    return {**found, "frame": frame.frame, "seconds": frame.t}


def _skeleton(count: int) -> dict[str, Any]:
    return {"keypoints": [str(place) for place in range(1, count + 1)], "skeleton": []} if count else {}


def _shape(region: Region, shot: Shot, masks: bool) -> dict[str, Any]:
    return {
        "bbox": bbox(region, shot),
        "area": number(area_in(region, shot.frame)),
        "iscrowd": 0,
        "segmentation": _segmentation(region, shot, masks),
    }


def _segmentation(region: Region, shot: Shot, masks: bool) -> Any:
    polys = polys_in(region, shot.frame)
    drawn = masks or (region.rle and not region.polys) or any(len(part) > 1 for part in polys)
    # A list of no polygons crashes the reference implementation, and so does leaving it out.
    runs = mask_in(region, shot.frame) if drawn and not is_plain(region) else None
    if runs is not None:
        return runs.as_json()
    return [numbers(one for point in part[0] for one in point) for part in polys]


def _keypoints(region: Region, shot: Shot, count: int) -> dict[str, Any]:
    if not region.kp:
        return {}
    seen = [(number(x), number(y), v) for x, y, v in keypoints_of(region, shot.frame)]
    flat = [one for point in seen for one in point] + [0] * 3 * (count - len(seen))
    return {"keypoints": flat, "num_keypoints": sum(1 for point in seen if point[2])}


def _facts(region: Region) -> dict[str, Any]:
    """Return what COCO has no place for; loaders leave it alone or keep it."""
    facts: dict[str, Any] = {} if region.score is None else {"score": number(region.score)}
    known = {"track_id": region.track, "text": region.text}
    named = {name: value for name, value in known.items() if value is not None}
    return {**facts, "attributes": {**region.attrs, **named, "source": region.src, "region": region.id}}
