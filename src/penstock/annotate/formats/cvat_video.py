"""CVAT 1.1 for video: tracks, with every frame that was looked at as a key frame, or as few as will do.

The importer keeps key frames only, and of a track of masks the first alone; so shapes go out as polygons
without holes.  A track ends with its last shape said once more, outside, in the frame behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from penstock.annotate.formats.base import LOSSES, Fault, Format
from penstock.annotate.formats.cvat import (
    SAYS,
    attributes_of,
    box_place,
    origin,
    points_text,
    write_meta,
)
from penstock.annotate.formats.cvat_check import check_video
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_line, keypoints_of, polys_of, rings_in
from penstock.annotate.formats.moments import Moment, moment_of, reduced
from penstock.annotate.formats.writing import Xml, opened
from penstock.annotate.records import Region
from penstock.annotate.shapes.kinds import ring_area

FILE = "annotations.xml"


class _Key(NamedTuple):
    """Which of CVAT's tracks a shape belongs to."""

    track: str
    label: str
    kind: str
    part: int


class _Shape(NamedTuple):
    at: Moment
    origin: str
    place: Mapping[str, Any]
    attributes: Mapping[str, str]


class CvatVideo(Format):
    """Shapes in videos, each video in a folder of its own."""

    name = "cvat-video"
    says = (SAYS - {"holes", "tags", "parts"}) | {"keypoints"}
    video = True

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        for name, shots in groupby(self.shots(data), key=lambda shot: shot.frame.name):
            path = folder / data.stems[name] / FILE
            with opened(path) as file:
                _write(Xml(file), data, name, shots, losses)
            yield path

    def faults(self, folder: Path) -> Iterator[Fault]:
        for path in sorted(folder.rglob(FILE)):
            yield from check_video(folder, path.relative_to(folder).as_posix())


def _write(xml: Xml, data: Dataset, name: str, shots: Iterable[Shot], losses: Counter[str]) -> None:
    size = data.sources[name].frames or 1 + max(
        shot.frame.frame for shot in data.shots() if shot.frame.name == name
    )
    with xml.inside("annotations"):
        xml.leaf("version", "1.1")
        write_meta(xml, data, "interpolation", size, data.survey.sizes[name], name)
        for number, (key, shapes) in enumerate(_tracks(shots, data, losses)):
            _write_track(xml, number, key, list(reduced(shapes, data.reduction, losses)), size)


def _tracks(
    shots: Iterable[Shot], data: Dataset, losses: Counter[str]
) -> Iterator[tuple[_Key, list[_Shape]]]:
    """Yield tracks as they end, so that no more than those that are open are held."""
    waiting: dict[_Key, list[_Shape]] = {}
    for seen, shot in enumerate(shots):
        for region in shot.drawable:
            if region.rle and not region.polys:
                polys = polys_of(region)
                losses[LOSSES["holes"]] += sum(len(part) - 1 for part in polys)
                losses[LOSSES["parts"]] += len(polys) > 1
            for kind, part, place in _places(region, shot):
                key = _Key(region.track or region.id, region.label, kind, part)
                at = moment_of(region, shot, seen, _values(place))
                shape = _Shape(at, origin(region), place, attributes_of(region, data.reduction))
                waiting.setdefault(key, []).append(shape)
        ended = [key for key in waiting if _last(key, shot, data) <= shot.frame.frame]
        yield from ((key, waiting.pop(key)) for key in ended)
    yield from waiting.items()


def _last(key: _Key, shot: Shot, data: Dataset) -> int:
    """Return the last frame of a track; what has no track ends where it stands."""
    return data.survey.last.get((shot.frame.name, key.track), shot.frame.frame)


def _places(region: Region, shot: Shot) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the shapes a region is: their kind, their number among those of this kind, and their place."""
    lines = shot.lines(region)
    if region.polys or region.rle:
        for part, ring in enumerate(sorted(rings_in(region, shot.frame), key=ring_area, reverse=True)):
            yield "polygon", part, {"points": points_text(ring)}
    elif not (lines and is_line(region)):
        yield "box", 0, box_place(region, shot)
    for part, line in enumerate(lines):
        yield "polyline", part, {"points": points_text(line)}
    if seen := [(x, y) for x, y, v in keypoints_of(region, shot.frame) if v]:
        yield "points", 0, {"points": points_text(seen)}


def _values(place: Mapping[str, Any]) -> tuple[float, ...] | str:
    """Return the numbers a box is written as, as whoever reads them finds them; of other shapes the text."""
    if "points" in place:
        return str(place["points"])
    return tuple(float(place[key]) for key in ("xtl", "ytl", "xbr", "ybr", "rotation") if key in place)


def _write_track(xml: Xml, number: int, key: _Key, stretches: list[list[_Shape]], size: int) -> None:
    with xml.inside("track", id=number, label=key.label, source=stretches[0][0].origin):
        for stretch in stretches:
            for shape in stretch:
                _write_shape(xml, key.kind, shape, shape.at.frame, outside=0)
            gone = stretch[-1].at.frame + 1
            if gone < size:
                _write_shape(xml, key.kind, stretch[-1], gone, outside=1)


def _write_shape(xml: Xml, kind: str, shape: _Shape, frame: int, outside: int) -> None:
    state = {"keyframe": 1, "outside": outside, "occluded": 0}
    with xml.inside(kind, frame=frame, **state, **shape.place, z_order=0):
        for name, value in sorted(shape.attributes.items()):
            xml.leaf("attribute", value, name=name)
