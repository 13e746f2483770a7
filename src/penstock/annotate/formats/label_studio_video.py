"""Label Studio for video: a task for each video, a sequence of key frames for each thing.

There are rectangles only.  Frames are counted from 1, lengths are in percent.  ``enabled`` says of a key
frame that the rectangle stays until the next one; without it, it is shown in this frame and no longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.geometry import is_turned
from penstock.annotate.formats.label_studio import CONFIG, FILE, rectangle_of, sure
from penstock.annotate.formats.moments import Moment, moment_of, reduced
from penstock.annotate.formats.reading import (
    Unreadable,
    box_fault,
    is_id,
    is_number,
    piece,
    read_pieces,
    read_xml,
)
from penstock.annotate.formats.writing import Xml, clean, number, opened, write_list
from penstock.annotate.keyframes import Values
from penstock.annotate.records import Region, region_id

KIND = "videorectangle"
_DEFAULT_RATE = 24  # what Label Studio takes where nobody says


class _Shape(NamedTuple):
    at: Moment
    seconds: float
    score: float | None
    place: Mapping[str, Any]


class _Thing(NamedTuple):
    """What is one sequence: a thing that is followed, or a region that belongs to none."""

    id: str
    label: str
    track: str | None


class LabelStudioVideo(Format):
    """Rectangles in videos, to be corrected by people."""

    name = "label-studio-video"
    says = frozenset({"rotated", "track"})
    video = True

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        with opened(folder / FILE) as file:
            films = groupby(self.shots(data), key=lambda shot: shot.frame.name)
            write_list(file, (_task(name, list(_things(shots)), data, losses) for name, shots in films))
            file.write("\n")
        yield folder / FILE
        with opened(folder / CONFIG) as file:
            _write_config(file, data)
        yield folder / CONFIG

    def faults(self, folder: Path) -> Iterator[Fault]:
        try:
            tasks, labels = read_pieces(folder, FILE, list[msgspec.Raw]), _labels(folder)
        except Unreadable as unreadable:
            yield unreadable.fault
            return
        for place, task in enumerate(map(piece, tasks)):
            if not isinstance(task, dict) or not (task.get("data") or {}).get("video"):
                yield Fault(FILE, f"[{place}]", "a task should have data with a video")
                continue
            for kind in ("predictions", "annotations"):
                for count, given in enumerate(task.get(kind) or ()):
                    where = f"[{place}].{kind}[{count}]"
                    yield from (Fault(FILE, where, what) for what in _given_faults(given, labels))


def _write_config(file: Any, data: Dataset) -> None:
    xml = Xml(file, declared=False)
    with xml.inside("View"):
        with xml.inside("Labels", name="labels", toName="video"):
            for label in data.survey.labels:
                xml.leaf("Label", value=label)
        xml.leaf("Video", name="video", value="$video", frameRate="$rate")
        xml.leaf("VideoRectangle", name="box", toName="video")


def _things(shots: Iterable[Shot]) -> Iterator[tuple[_Thing, Shot, list[_Shape]]]:
    """Yield what is followed through a video, in the order of its first frames."""
    found: dict[_Thing, tuple[Shot, list[_Shape]]] = {}
    for seen, shot in enumerate(shots):
        for region in shot.regions:
            thing = _thing(region, shot)
            found.setdefault(thing, (shot, []))[1].append(_shape(region, shot, seen))
    yield from ((thing, *rest) for thing, rest in found.items())


def _thing(region: Region, shot: Shot) -> _Thing:
    if region.track is None:
        return _Thing(region.id, region.label, None)
    name = region_id(shot.frame.src, 0, (region.track, region.label), shot.frame.name)
    return _Thing(name, region.label, region.track)


def _shape(region: Region, shot: Shot, seen: int) -> _Shape:
    values: Values = shot.clipped(region.box)
    if region.obb and is_turned(region.obb):
        x, y, width, height, angle = region.obb
        values = (x - width / 2, y - height / 2, x + width / 2, y + height / 2, angle % 360)
    at = moment_of(region, shot, seen, values)
    return _Shape(at, float(shot.frame.seconds), region.score, rectangle_of(region, shot))


def _task(
    name: str, things: list[tuple[_Thing, Shot, list[_Shape]]], data: Dataset, losses: Counter[str]
) -> dict[str, Any]:
    source = data.sources[name]
    rate = float(Fraction(source.rate or _DEFAULT_RATE))
    last = max((shape.at.frame for _, _, shapes in things for shape in shapes), default=0)
    count = source.frames or last + 1
    length = {"framesCount": count, "duration": float(Fraction(source.seconds or count / rate))}
    results = [_result(thing, shot, shapes, length, data, losses) for thing, shot, shapes in things]
    score = sure(shape.score for _, _, shapes in things for shape in shapes)
    return {
        "data": {"video": name, "source": name, "rate": f"{rate:g}"},
        "predictions": [{"model_version": data.model or "penstock", **score, "result": results}],
    }


def _result(
    thing: _Thing,
    shot: Shot,
    shapes: list[_Shape],
    length: Mapping[str, Any],
    data: Dataset,
    losses: Counter[str],
) -> dict[str, Any]:
    sequence = [
        _key(shape, is_last=shape is stretch[-1])
        for stretch in reduced(shapes, data.reduction, losses)
        for shape in stretch
    ]
    told = {"track": thing.track, "tolerance": None if data.reduction is None else str(data.reduction)}
    meta = {name: [value] for name, value in told.items() if value is not None}
    return {
        "id": thing.id,
        "from_name": "box",
        "to_name": "video",
        "type": KIND,
        "original_width": shot.frame.w,
        "original_height": shot.frame.h,
        **sure(shape.score for shape in shapes),
        **({"meta": meta} if meta else {}),
        "value": {**length, "sequence": sequence, "labels": [clean(thing.label)]},
    }


def _key(shape: _Shape, *, is_last: bool) -> dict[str, Any]:
    return {
        "frame": shape.at.frame + 1,
        "time": number(shape.seconds),
        "enabled": not is_last,
        **shape.place,
    }


def _labels(folder: Path) -> set[str]:
    root = read_xml(folder, CONFIG)
    if root.find("Video") is None or root.find("VideoRectangle") is None:
        raise Unreadable(Fault(CONFIG, "", "it should show a video, and have rectangles for it"))
    return {label.get("value", "") for label in root.iterfind("Labels/Label")}


def _given_faults(given: Any, labels: set[str]) -> Iterator[str]:
    if not isinstance(given, dict) or not isinstance(given.get("result"), list):
        yield "it should have a list of results"
        return
    ids: set[str] = set()
    for place, result in enumerate(given["result"]):
        if not isinstance(result, dict) or not isinstance(result.get("id"), str) or result["id"] in ids:
            yield f"result {place}: its id should be text, and its own"
            continue
        ids.add(result["id"])
        if "score" in result and not (is_number(result["score"]) and 0 <= result["score"] <= 1):
            yield f"result {place}: its score should be from 0 to 1"
        if result.get("type") != KIND or not isinstance(result.get("value"), dict):
            yield f"result {place}: it should be a {KIND} with a value"
            continue
        yield from (f"result {place}: {what}" for what in _value_faults(result["value"], labels))


def _value_faults(value: dict[str, Any], labels: set[str]) -> Iterator[str]:
    named, count = value.get("labels"), value.get("framesCount")
    if not isinstance(named, list) or not named or set(named) - labels:
        yield f"its labels {named!r} are not all in the config"
    if not is_id(count) or not is_number(value.get("duration")):
        yield "framesCount should be a whole number from 1 on, and duration a number"
        return
    sequence, last = value.get("sequence"), 0
    if not isinstance(sequence, list) or not sequence:
        yield "it has no sequence"
        return
    for key in sequence:
        frame = key.get("frame")
        if not is_id(frame) or not last < frame <= count:
            yield f"frame {frame!r}: frames should rise, from 1 to {count}"
            return
        last = frame
        if not isinstance(key.get("enabled"), bool) or not is_number(key.get("time")):
            yield f"frame {frame}: enabled should be true or false, and time a number"
        if what := _place_fault(key):
            yield f"frame {frame}: {what}"


def _place_fault(key: dict[str, Any]) -> str:
    box: list[Any] = [key.get(name) for name in ("x", "y", "width", "height")]
    if not all(map(is_number, (*box, key.get("rotation", 0)))) or box[2] <= 0 or box[3] <= 0:
        return "a rectangle should have x, y, and a width and a height above 0"
    if key.get("rotation"):  # before it is turned, it may well lie partly outside
        return ""
    left, top, width, height = box
    return box_fault(left, top, left + width, top + height, 100, 100)
