"""YOLO: a text file for each image, a row for each object, in parts of the image's size.

Readers reject a whole file, with a warning at most, if its rows are of several kinds or have one column more,
for a score; so each task has its own folder, and scores, tracks and ids stand beside the labels, row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from penstock.annotate.formats.base import LOSSES, Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_plain, keypoints_of, polys_of, rings_in, rotated_of
from penstock.annotate.formats.writing import opened, text_of
from penstock.annotate.formats.yolo_check import Task, check_folder
from penstock.annotate.records import Point, Region
from penstock.annotate.shapes.kinds import corners

YAML = "data.yaml"
LABELS = "labels/train"
BESIDE = "beside.jsonl"


class YoloDetection(Format):
    """Boxes."""

    name = "yolo"
    says = frozenset({"score", "track", "text", "attributes", "origin"})
    task: ClassVar[Task] = "detect"

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        classes = {label: place for place, label in enumerate(data.survey.labels)}
        with opened(folder / BESIDE) as beside:
            for shot in data.shots():
                rows = self._rows(shot, data, classes, losses)
                with opened(folder / LABELS / f"{shot.flat}.txt") as file:
                    file.writelines(f"{row}\n" for row in rows)
                facts = [_facts(region) for region in rows.values()]
                beside.write(f"{text_of({'image': shot.flat_name, 'rows': facts})}\n")
                yield folder / LABELS / f"{shot.flat}.txt"
        yield folder / BESIDE
        with opened(folder / YAML) as file:
            yaml.safe_dump(self._yaml(data), file, sort_keys=False, allow_unicode=True)
        yield folder / YAML

    def faults(self, folder: Path) -> Iterator[Fault]:
        return check_folder(folder, YAML, LABELS, BESIDE, self.task)

    def picture(self, shot: Shot) -> str:
        return f"images/train/{shot.flat_name}"

    def values(
        self, region: Region, shot: Shot, data: Dataset, losses: Counter[str]
    ) -> Iterator[list[float]]:
        """Yield what stands in the rows of a region behind its class, in pixels."""
        left, top, right, bottom = shot.clipped(region.box)
        yield [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]

    def more(self, data: Dataset) -> dict[str, Any]:
        """Return what this task adds to the description of the data."""
        return {}

    def line(self, label: int, values: list[float], shot: Shot) -> str:
        """Return a row."""
        return " ".join([str(label), *(_part(one, shot, place % 2) for place, one in enumerate(values))])

    def _rows(
        self, shot: Shot, data: Dataset, classes: dict[str, int], losses: Counter[str]
    ) -> dict[str, Region]:
        rows: dict[str, Region] = {}
        for region in shot.regions:
            for values in self.values(region, shot, data, losses):
                row = self.line(classes[region.label], values, shot)
                losses["rows left out that say what another says"] += row in rows  # readers drop them
                rows.setdefault(row, region)
        return rows

    def _yaml(self, data: Dataset) -> dict[str, Any]:
        names = dict(enumerate(data.survey.labels))
        return {
            "path": ".",
            "train": "images/train",
            "val": "images/train",
            "names": names,
            **self.more(data),
        }


class YoloSegmentation(YoloDetection):
    """Polygons; boxes as polygons of four points, as rows of boxes among them would be refused."""

    name = "yolo-seg"
    says = YoloDetection.says | {"shape", "rotated"}
    task = "segment"

    def values(
        self, region: Region, shot: Shot, data: Dataset, losses: Counter[str]
    ) -> Iterator[list[float]]:
        if not region.polys and region.rle:
            polys = polys_of(region)
            losses[LOSSES["holes"]] += sum(len(part) - 1 for part in polys)
            losses[LOSSES["parts"]] += len(polys) > 1
        for ring in rings_in(region, shot.frame):
            yield _flat(ring, shot)


class YoloRotated(YoloDetection):
    """Rotated boxes, by their corners."""

    name = "yolo-obb"
    says = YoloDetection.says | {"rotated"}
    task = "obb"

    def values(
        self, region: Region, shot: Shot, data: Dataset, losses: Counter[str]
    ) -> Iterator[list[float]]:
        ring = corners(rotated_of(region))
        if not all(0 <= x <= shot.frame.w and 0 <= y <= shot.frame.h for x, y in ring):
            losses["rotated boxes whose corners outside the image were moved to its edge"] += not is_plain(
                region
            )
        yield _flat(ring, shot)


class YoloPose(YoloDetection):
    """Boxes with keypoints; regions without any have them all unlabelled."""

    name = "yolo-pose"
    says = YoloDetection.says | {"keypoints"}
    task = "pose"

    def values(
        self, region: Region, shot: Shot, data: Dataset, losses: Counter[str]
    ) -> Iterator[list[float]]:
        (box,) = super().values(region, shot, data, losses)
        found = [one for point in keypoints_of(region, shot.frame) for one in point]
        yield [*box, *found, *[0.0] * (3 * _most(data) - len(found))]

    def more(self, data: Dataset) -> dict[str, Any]:
        return {"kpt_shape": [_most(data), 3]}

    def line(self, label: int, values: list[float], shot: Shot) -> str:
        points = [values[at : at + 3] for at in range(4, len(values), 3)]
        shown = (f"{_part(x, shot, 0)} {_part(y, shot, 1)} {int(v)}" for x, y, v in points)
        return " ".join([super().line(label, values[:4], shot), *shown])


def _most(data: Dataset) -> int:
    return max(data.survey.keypoints.values(), default=0)


def _flat(ring: Iterable[Point], shot: Shot) -> list[float]:
    return [one for x, y in ring for one in (min(max(x, 0.0), shot.frame.w), min(max(y, 0.0), shot.frame.h))]


def _part(value: float, shot: Shot, down: int) -> str:
    """Return a length as a part of the image's, to a hundred millionth, which is far below a pixel."""
    return f"{value / (shot.frame.h if down else shot.frame.w):.8f}"


def _facts(region: Region) -> dict[str, Any]:
    facts = {
        "score": region.score,
        "track": region.track,
        "text": region.text,
        "attributes": region.attrs or None,
    }
    named = {name: value for name, value in facts.items() if value is not None}
    return {"region": region.id, "source": region.src, **named}
