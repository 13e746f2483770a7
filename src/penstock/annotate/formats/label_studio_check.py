"""What Label Studio's own check refuses, and what it does not look at: sizes, ids, brushes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from penstock.annotate.formats.base import Fault
from penstock.annotate.formats.brush import unpack_mask
from penstock.annotate.formats.reading import Unreadable, is_id, is_number, piece, read_pieces, read_xml

_SLACK = 1e-6  # percent


def check_tasks(folder: Path, name: str, config: str) -> Iterator[Fault]:
    """Yield what is wrong with tasks."""
    try:
        tasks, controls = read_pieces(folder, name, list[msgspec.Raw]), _controls(folder, config)
    except Unreadable as unreadable:
        yield unreadable.fault
        return
    for place, task in enumerate(map(piece, tasks)):
        if (
            not isinstance(task, dict)
            or not isinstance(task.get("data"), dict)
            or not task["data"].get("image")
        ):
            yield Fault(name, f"[{place}]", "a task should have data with an image")
            continue
        for kind in ("predictions", "annotations"):
            for number, given in enumerate(task.get(kind) or ()):
                where = f"[{place}].{kind}[{number}]"
                yield from (Fault(name, where, what) for what in _given_faults(given, controls))


def _controls(folder: Path, config: str) -> Mapping[str, tuple[str, set[str]]]:
    """Return the controls by name: the kind of their results, and their labels."""
    root = read_xml(folder, config)
    if root.find("Image") is None:
        raise Unreadable(Fault(config, "", "it should show an image"))
    return {
        control.get("name", ""): (control.tag.lower(), {one.get("value", "") for one in control})
        for control in root
        if control.tag != "Image"
    }


def _given_faults(given: Any, controls: Mapping[str, tuple[str, set[str]]]) -> Iterator[str]:
    if not isinstance(given, dict) or not isinstance(given.get("result"), list):
        yield "it should have a list of results"
        return
    if "score" in given and not (is_number(given["score"]) and 0 <= given["score"] <= 1):
        yield "its score should be from 0 to 1"
    ids: set[str] = set()
    for place, result in enumerate(given["result"]):
        if not isinstance(result, dict) or not isinstance(result.get("id"), str) or result["id"] in ids:
            yield f"result {place}: its id should be text, and its own"
            continue
        ids.add(result["id"])
        if what := _result_fault(result, controls):
            yield f"result {place}: {what}"


def _result_fault(result: dict[str, Any], controls: Mapping[str, tuple[str, set[str]]]) -> str:
    kind, value = result.get("type"), result.get("value")
    control = controls.get(str(result.get("from_name")))
    if control is None or control[0] != kind or result.get("to_name") != "image":
        return f"there is no control {result.get('from_name')!r} for {kind!r}"
    width, height = result.get("original_width"), result.get("original_height")
    if not is_id(width) or not is_id(height):
        return "original_width and original_height should be whole numbers from 1 on"
    if not isinstance(value, dict):
        return "it has no value"
    labels = value.get(kind if kind != "choices" else "choices")
    if not isinstance(labels, list) or not labels or set(labels) - control[1]:
        return f"its labels {labels!r} are not all in the config"
    if "score" in result and not (is_number(result["score"]) and 0 <= result["score"] <= 1):
        return "its score should be from 0 to 1"
    return _value_fault(str(kind), value, width, height)


def _value_fault(kind: str, value: dict[str, Any], width: int, height: int) -> str:
    if kind == "choices":
        return ""
    if kind == "brushlabels":
        try:
            unpack_mask(bytes(value["rle"]), height, width)
        except (KeyError, TypeError, ValueError) as error:
            return f"its brush cannot be read: {error}"
        return ""
    if kind == "polygonlabels":
        points = value.get("points")
        if not isinstance(points, list) or len(points) < 3:
            return "a polygon should have three points or more"
        return _percent_fault([one for point in points for one in point])
    if kind == "vectorlabels":
        vertices = value.get("vertices")
        if not isinstance(vertices, list) or len(vertices) < 2:
            return "a line should have two vertices or more"
        return _percent_fault([one for vertex in vertices for one in (vertex.get("x"), vertex.get("y"))])
    if kind == "keypointlabels":
        return _percent_fault([value.get("x"), value.get("y")])
    box: list[Any] = [value.get(key) for key in ("x", "y", "width", "height")]
    if not all(map(is_number, box)) or box[2] <= 0 or box[3] <= 0:
        return "a rectangle should have x, y, and a width and a height above 0"
    if value.get("rotation"):  # before it is turned, it may well lie partly outside
        return ""
    return _percent_fault([box[0], box[1], box[0] + box[2], box[1] + box[3]])


def _percent_fault(values: list[Any]) -> str:
    if not all(is_number(one) and -_SLACK <= one <= 100 + _SLACK for one in values):
        return "it reaches outside the image; all should be from 0 to 100"
    return ""
