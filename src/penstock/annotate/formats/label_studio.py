"""Label Studio: a task for each image, what a model found as predictions, what people said as annotations.

Lengths are in percent of the image.  A polygon there is one ring, so a shape with holes or in several parts
is a brush: Label Studio's own runs of bytes, see ``brush``.  Beside the tasks stands the labelling config.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.annotate import rle
from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.brush import pack_mask
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_line, is_turned, keypoints_of, mask_in, polys_in
from penstock.annotate.formats.label_studio_check import check_tasks
from penstock.annotate.formats.writing import Xml, clean, number, opened, write_list
from penstock.annotate.records import Region
from penstock.annotate.shapes.kinds import corners

FILE = "tasks.json"
CONFIG = "config.xml"
# The controls: kind of a region, name in the config, tag of the config.
CONTROLS: Mapping[str, tuple[str, str]] = {
    "rectanglelabels": ("box", "RectangleLabels"),
    "polygonlabels": ("polygon", "PolygonLabels"),
    "brushlabels": ("mask", "BrushLabels"),
    "keypointlabels": ("keypoint", "KeyPointLabels"),
}
# Only where there are lines: a Label Studio of before 2025 knows of none, and refuses the config.
LINES: Mapping[str, tuple[str, str]] = {"vectorlabels": ("line", "VectorLabels")}
_POINT = 0.5  # how large a keypoint is shown, in percent


class LabelStudio(Format):
    """Shapes in images, to be corrected by people."""

    name = "label-studio"
    says = frozenset(
        {
            "shape",
            "lines",
            "rotated",
            "holes",
            "parts",
            "keypoints",
            "score",
            "track",
            "text",
            "attributes",
            "origin",
        }
    ) | {"tags"}

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        with opened(folder / FILE) as file:
            write_list(file, (task_of(shot, data, losses) for shot in data.shots()))
            file.write("\n")
        yield folder / FILE
        with opened(folder / CONFIG) as file:
            write_config(file, data)
        yield folder / CONFIG

    def faults(self, folder: Path) -> Iterator[Fault]:
        return check_tasks(folder, FILE, CONFIG)


def write_config(file: Any, data: Dataset) -> None:
    """Write the labelling config."""
    labels = data.survey.labels
    xml = Xml(file, declared=False)
    with xml.inside("View"):
        xml.leaf("Image", name="image", value="$image")
        lines = LINES if "lines" in data.survey.used else {}
        for name, tag in {**CONTROLS, **lines}.values():
            with xml.inside(tag, name=name, toName="image"):
                for label in labels:
                    xml.leaf("Label", value=label)
        with xml.inside("Choices", name="tags", toName="image", choice="multiple"):
            for label in labels:
                xml.leaf("Choice", value=label)


def task_of(shot: Shot, data: Dataset, losses: Counter[str]) -> dict[str, Any]:
    """Return the task of an image; what people said of it is an annotation, and then the whole image is."""
    results = [*_choices(shot), *(one for region in shot.drawable for one in _results(region, shot, losses))]
    facts = {"image": shot.file_name, "source": shot.frame.name, "frame": shot.frame.frame}
    if any(region.src == "human" for region in shot.frame.regions):
        return {"data": facts, "annotations": [{"result": results}]}
    # The lowest score, so that sorting by it shows first what is least sure.
    score = sure(region.score for region in shot.regions)
    return {
        "data": facts,
        "predictions": [{"model_version": data.model or "penstock", **score, "result": results}],
    }


def _choices(shot: Shot) -> Iterator[dict[str, Any]]:
    if shot.frame.labels:
        place = {"from_name": "tags", "to_name": "image", **_picture(shot)}
        choices = [clean(tag.label) for tag in shot.frame.labels]
        yield {
            "id": f"tags-{shot.number}",
            **place,
            "type": "choices",
            "value": {"choices": choices},
            **sure(tag.score for tag in shot.frame.labels),
        }


def sure(given: Iterable[float | None]) -> dict[str, Any]:
    """Return the lowest score, if there is any."""
    scores = [score for score in given if score is not None]
    return {"score": number(min(max(min(scores), 0), 1))} if scores else {}


def _results(region: Region, shot: Shot, losses: Counter[str]) -> Iterator[dict[str, Any]]:
    for at, (kind, value) in enumerate(_shapes(region, shot)):
        name = f"{region.id}.{at}" if at else region.id
        yield {"id": name, **_head(kind, region, shot), "value": {**value, kind: [clean(region.label)]}}
    for place, (x, y, v) in enumerate(keypoints_of(region, shot.frame)):
        losses["keypoints hidden or not labelled, left out or shown like the others"] += v != 2
        if v:
            point = {"x": x / shot.frame.w * 100, "y": y / shot.frame.h * 100, "width": _POINT}
            head = {
                "id": f"{region.id}-{place}",
                "parentID": region.id,
                **_head("keypointlabels", region, shot),
            }
            yield {**head, "value": {**point, "keypointlabels": [clean(region.label)]}}


def _head(kind: str, region: Region, shot: Shot) -> dict[str, Any]:
    facts = {
        "track": region.track,
        "attributes": dict(region.attrs) or None,
        "by": None if region.src == "model" else region.src,
    }
    told = {
        name: [value] if isinstance(value, str) else value
        for name, value in facts.items()
        if value is not None
    }
    text = {"text": [region.text]} if region.text is not None else {}
    return {
        "from_name": {**CONTROLS, **LINES}[kind][0],
        "to_name": "image",
        "type": kind,
        **_picture(shot),
        **sure([region.score]),
        **({"meta": {**text, **told}} if text or told else {}),
    }


def _picture(shot: Shot) -> dict[str, Any]:
    return {"original_width": shot.frame.w, "original_height": shot.frame.h, "image_rotation": 0}


def _shapes(region: Region, shot: Shot) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and the place of each result a region is."""
    lines = shot.lines(region)
    if not (lines and is_line(region)):
        yield _shape(region, shot)
    for line in lines:
        vertices: list[dict[str, Any]] = []
        for at, (x, y) in enumerate(line):
            before = {"prevPointId": f"{at - 1}"} if at else {}
            place = {"x": x / shot.frame.w * 100, "y": y / shot.frame.h * 100}
            vertices.append({"id": f"{at}", **before, **place, "isBezier": False})
        yield "vectorlabels", {"vertices": vertices, "closed": False}


def _shape(region: Region, shot: Shot) -> tuple[str, dict[str, Any]]:
    width, height = shot.frame.w, shot.frame.h
    if region.polys or region.rle:
        polys = polys_in(region, shot.frame)
        if region.polys and len(polys) == 1 and len(polys[0]) == 1:
            points = [[x / width * 100, y / height * 100] for x, y in polys[0][0]]
            return "polygonlabels", {"points": points, "closed": True}
        if (runs := mask_in(region, shot.frame)) is not None:
            return "brushlabels", {"format": "rle", "rle": list(pack_mask(rle.decode(runs)))}
    return "rectanglelabels", rectangle_of(region, shot)


def rectangle_of(region: Region, shot: Shot) -> dict[str, Any]:
    """Return where a box is, or a rotated one: in percent, turned about what was its top-left corner."""
    width, height = shot.frame.w, shot.frame.h
    left, top, right, bottom = shot.clipped(region.box)
    turn = 0.0
    if region.obb and is_turned(region.obb):
        (left, top), (_, _, across, down, turn) = corners(region.obb)[0], region.obb
        right, bottom = left + across, top + down
    place = {"x": left / width * 100, "y": top / height * 100}
    size = {"width": (right - left) / width * 100, "height": (bottom - top) / height * 100}
    return {**place, **size, "rotation": number(turn % 360)}
