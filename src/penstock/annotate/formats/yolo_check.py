"""What readers of YOLO refuse, and what they take although it is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import yaml

from penstock.annotate.formats.base import Fault
from penstock.annotate.formats.reading import Unreadable, decimals, is_number, read_lines, read_text

Task: TypeAlias = Literal["detect", "segment", "obb", "pose"]

# Of numbers with eight places: a box may end this far beyond its image.
_SLACK = 2e-8
_RING = 6  # numbers of a polygon of three points


class _Kind(NamedTuple):
    task: Task
    classes: int
    keypoints: int


def check_folder(folder: Path, description: str, labels: str, beside: str, task: Task) -> Iterator[Fault]:
    """Yield what is wrong with a data set of one task."""
    try:
        kind = _read_yaml(read_text(folder, description), task)
    except (Unreadable, ValueError, yaml.YAMLError) as error:
        yield error.fault if isinstance(error, Unreadable) else Fault(description, "", str(error))
        return
    counts: dict[str, int] = {}
    for path in sorted((folder / labels).rglob("*.txt")):
        name = path.relative_to(folder).as_posix()
        try:
            lines = read_lines(folder, name)
        except Unreadable as unreadable:
            yield unreadable.fault
            continue
        counts[path.relative_to(folder / labels).with_suffix("").as_posix()] = len(lines)
        yield from _file_faults(lines, name, kind)
    yield from _beside_faults(folder, beside, counts)


def _read_yaml(text: str, task: Task) -> _Kind:
    found = yaml.safe_load(text)
    names = found.get("names") if isinstance(found, dict) else None
    if not isinstance(names, dict) or list(names) != list(range(len(names))):
        raise ValueError("`names` should number the classes from 0 on")
    if not all(isinstance(name, str) for name in names.values()) or len(set(names.values())) != len(names):
        raise ValueError("`names` should be text, each once")
    if not all(isinstance(found.get(key), str) for key in ("path", "train", "val")):
        raise ValueError("`path`, `train` and `val` should be folders")
    shape = found.get("kpt_shape", [0, 3])
    if task == "pose" and (
        not isinstance(shape, list) or len(shape) != 2 or shape[1] != 3 or not is_number(shape[0])
    ):
        raise ValueError("`kpt_shape` should be the number of keypoints, and 3")
    return _Kind(task, len(names), shape[0])


def _file_faults(lines: list[str], name: str, kind: _Kind) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if what := _row_fault(line.split(" "), kind):
            yield Fault(name, f"line {number}", what)
        elif line in seen:
            yield Fault(name, f"line {number}", "it says what another line says")
        seen.add(line)


def _row_fault(words: list[str], kind: _Kind) -> str:
    if not words[0].isascii() or not words[0].isdigit() or int(words[0]) >= kind.classes:
        return f"the class {words[0]!r} should be a whole number below {kind.classes}"
    found = decimals(words[1:])
    if found is None:
        return "all behind the class should be finite numbers"
    wanted = {"detect": 4, "obb": 8, "pose": 4 + 3 * kind.keypoints}
    if kind.task == "segment" and (len(found) < _RING or len(found) % 2):
        return f"a polygon should have six numbers or more, by twos; there are {len(found)}"
    if kind.task != "segment" and len(found) != wanted[kind.task]:
        return f"there should be {wanted[kind.task]} numbers behind the class; there are {len(found)}"
    return _range_fault(found, kind)


def _range_fault(found: list[float], kind: _Kind) -> str:
    if kind.task in ("detect", "pose"):
        x, y, width, height = found[:4]
        if width <= 0 or height <= 0:
            return "the box has no area"
        points = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        rest = found[4:]
        if any(one not in (0, 1, 2) for one in rest[2::3]):
            return "the third number of a keypoint should be 0, 1 or 2"
        points += [*rest[0::3], *rest[1::3]]
    else:
        points = found
    if not all(-_SLACK <= one <= 1 + _SLACK for one in points):
        return "it reaches outside the image"
    return ""


def _beside_faults(folder: Path, beside: str, counts: dict[str, int]) -> Iterator[Fault]:
    try:
        lines = read_lines(folder, beside)
    except Unreadable as unreadable:
        yield unreadable.fault
        return
    for number, line in enumerate(lines, 1):
        try:
            entry: Any = json.loads(line)
            stem, rows = str(Path(entry["image"]).with_suffix("").as_posix()), len(entry["rows"])
        except (ValueError, KeyError, TypeError):
            yield Fault(beside, f"line {number}", "it should be an object with an image and its rows")
            continue
        if counts.pop(stem, None) != rows:
            yield Fault(
                beside, f"line {number}", f"it does not have as many rows as the labels of {entry['image']}"
            )
    for stem in counts:
        yield Fault(beside, "", f"it has no line for the labels of {stem}")
