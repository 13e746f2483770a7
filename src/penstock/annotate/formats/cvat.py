"""CVAT 1.1 for images: an XML element for each shape, in pixels to the hundredth.

A polygon there is one ring, so a shape with holes, or in several parts, is a mask: the runs of its rows,
first the zeros, cut to its box.  (COCO's run down the columns of the whole image.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.annotate import rle
from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.cvat_check import check_images
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_line, is_turned, keypoints_of, mask_in, polys_in
from penstock.annotate.formats.writing import Xml, opened, text_of
from penstock.annotate.keyframes import Reduction
from penstock.annotate.records import Region

if TYPE_CHECKING:
    from penstock.annotate.shapes.kinds import Mask

FILE = "annotations.xml"
SCORE = "0\n1\n0.0001"
# What is told of every region beside what the model says of it.
OWN = ("region", "score", "text", "track")
TOLERANCE = "tolerance"  # how far boxes between key frames may be off
SAYS = frozenset(
    {"shape", "lines", "rotated", "holes", "parts", "score", "track", "text", "attributes", "origin", "tags"}
)


class CvatImages(Format):
    """Shapes in images."""

    name = "cvat"
    says = SAYS | {"keypoints"}

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        with opened(folder / FILE) as file:
            xml = Xml(file)
            with xml.inside("annotations"):
                xml.leaf("version", "1.1")
                write_meta(xml, data, "annotation", sum(1 for _ in data.shots()))
                for shot in data.shots():
                    _write_image(xml, shot, data, losses)
        yield folder / FILE

    def faults(self, folder: Path) -> Iterator[Fault]:
        return check_images(folder, FILE)


def write_meta(
    xml: Xml,
    data: Dataset,
    mode: str,
    size: int,
    picture: tuple[int, int] | None = None,
    source: str = "",
) -> None:
    """Write what the labels are, and their attributes; of a video its name and size, too."""
    attributes = attribute_names(data, data.reduction if picture else None)
    with xml.inside("meta"), xml.inside("task"):
        xml.leaf("name", "penstock")
        xml.leaf("size", size)
        xml.leaf("mode", mode)
        if picture:
            xml.leaf("source", source)
        with xml.inside("labels"):
            for label in data.survey.labels:
                with xml.inside("label"):
                    xml.leaf("name", label)
                    xml.leaf("type", "any")
                    with xml.inside("attributes"):
                        for name in attributes:
                            _write_attribute(xml, name)
        if picture:
            with xml.inside("original_size"):
                xml.leaf("width", picture[0])
                xml.leaf("height", picture[1])


def attribute_names(data: Dataset, reduction: Reduction | None = None) -> list[str]:
    """Return the names of all attributes."""
    own = (*OWN, TOLERANCE) if reduction else OWN
    return [*own, *(name for name in data.survey.attributes if name not in own)]


def attributes_of(region: Region, reduction: Reduction | None = None) -> dict[str, str]:
    """Return what is told of a region, as text; with how far boxes are off that interpolation gives back."""
    told = {name: value if isinstance(value, str) else text_of(value) for name, value in region.attrs.items()}
    own = {"region": region.id, "text": region.text, "track": region.track}
    score = {} if region.score is None else {"score": f"{min(max(region.score, 0), 1):.4f}"}
    known = {**told, **{name: value for name, value in own.items() if value is not None}, **score}
    return {**known, TOLERANCE: str(reduction)} if reduction else known


def points_text(ring: Iterable[tuple[float, float]]) -> str:
    """Return points as CVAT writes them."""
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in ring)


def box_place(region: Region, shot: Shot) -> dict[str, str]:
    """Return where a box lies, or where a rotated one lay before it was turned."""
    box, turn = shot.clipped(region.box), {}
    if region.obb and is_turned(region.obb):
        x, y, width, height, angle = region.obb
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        turn = {"rotation": f"{angle % 360:.2f}"}
    return {
        **{key: f"{edge:.2f}" for key, edge in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)},
        **turn,
    }


def origin(region: Region) -> str:
    """Return who says so, as CVAT calls it."""
    return "manual" if region.src == "human" else "auto"


def _write_attribute(xml: Xml, name: str) -> None:
    with xml.inside("attribute"):
        xml.leaf("name", name)
        xml.leaf("mutable", "True")
        xml.leaf("input_type", "number" if name == "score" else "text")
        xml.leaf("default_value", "1" if name == "score" else "")
        xml.leaf("values", SCORE if name == "score" else "")


def _write_image(xml: Xml, shot: Shot, data: Dataset, losses: Counter[str]) -> None:
    frame = shot.frame
    with xml.inside("image", id=shot.number - 1, name=shot.file_name, width=frame.w, height=frame.h):
        for group, region in enumerate(shot.drawable, 1):
            _write_region(xml, region, shot, group)
            hidden = sum(1 for point in keypoints_of(region, frame) if point[2] != 2)
            losses["keypoints hidden or not labelled, left out or shown like the others"] += hidden
        for tag in frame.labels:
            with xml.inside("tag", label=tag.label, source="auto"):
                if tag.score is not None:
                    xml.leaf("attribute", f"{tag.score:.4f}", name="score")


def _write_region(xml: Xml, region: Region, shot: Shot, group: int) -> None:
    common: dict[str, Any] = {"label": region.label, "source": origin(region), "occluded": 0}
    last = {"z_order": 0, "group_id": group}
    for name, place in _shapes(region, shot):
        with xml.inside(name, **common, **place, **last):
            _write_attributes(xml, region)
    seen = [(x, y) for x, y, v in keypoints_of(region, shot.frame) if v]
    if seen:
        with xml.inside("points", **common, points=points_text(seen), **last):
            _write_attributes(xml, region)


def _write_attributes(xml: Xml, region: Region) -> None:
    for name, value in sorted(attributes_of(region).items()):
        xml.leaf("attribute", value, name=name)


def _shapes(region: Region, shot: Shot) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the elements a region is, and where they say that they lie."""
    lines = shot.lines(region)
    if not (lines and is_line(region)):
        yield _shape(region, shot)
    yield from (("polyline", {"points": points_text(line)}) for line in lines)


def _shape(region: Region, shot: Shot) -> tuple[str, dict[str, Any]]:
    """Return the element a region is, and where it says that it lies."""
    if region.polys or region.rle:
        polys = polys_in(region, shot.frame)
        if region.polys and len(polys) == 1 and len(polys[0]) == 1:
            return "polygon", {"points": points_text(polys[0][0])}
        if (runs := mask_in(region, shot.frame)) is not None:
            return "mask", _mask(rle.decode(runs))
    return "box", box_place(region, shot)


def _mask(mask: Mask) -> dict[str, Any]:
    import numpy as np

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Down the columns of what is turned is along the rows.
    counts = rle.encode(cut.T).counts
    place = {"left": columns[0], "top": rows[0], "width": cut.shape[1], "height": cut.shape[0]}
    return {"rle": ", ".join(map(str, counts)), **place}
