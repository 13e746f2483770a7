"""Files read back by those who check them: nothing is believed, and what is wrong is told with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, TypeGuard, TypeVar
from xml.etree import ElementTree

import msgspec

from penstock.annotate.formats.base import Fault

T = TypeVar("T")
# Coordinates that were rounded may lie this far outside, in pixels.
SLACK = 0.01


class Unreadable(Exception):
    """A file that is missing, or is not of its kind; holds the fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def read_text(folder: Path, name: str) -> str:
    """Return the text of a file.

    Raises:
        Unreadable: It is missing or no UTF-8.
    """
    try:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise Unreadable(Fault(name, "", f"it cannot be read: {error}")) from error


def read_lines(folder: Path, name: str) -> list[str]:
    """Return the lines of a file, which line feeds end and nothing else.

    Raises:
        Unreadable: It is missing or no UTF-8.
    """
    lines = read_text(folder, name).split("\n")
    return lines if lines[-1] else lines[:-1]


def read_json(folder: Path, name: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        Unreadable: It is missing or no JSON; numbers that are not finite and repeated keys count as such.
    """
    text = read_text(folder, name)
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise Unreadable(Fault(name, "", f"it is no JSON: {error}")) from error


def read_pieces(folder: Path, name: str, form: type[T]) -> T:
    """Return what a JSON file holds, long lists of it as they stand, to be read by ``piece`` one by one.

    Raises:
        Unreadable: It is missing, no JSON, or of another form.
    """
    try:
        return msgspec.json.decode(read_text(folder, name), type=form)
    except msgspec.ValidationError as error:
        raise Unreadable(Fault(name, "", f"it is of another form: {error}")) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(Fault(name, "", f"it is no JSON: {error}")) from error


def piece(raw: msgspec.Raw) -> Any:
    """Return an element of a long list; None if it has a number that no program can hold."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None


def read_xml(folder: Path, name: str) -> ElementTree.Element:
    """Return the root of an XML file.

    Raises:
        Unreadable: It is missing or no XML.
    """
    text = read_text(folder, name)
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise Unreadable(Fault(name, "", f"it is no XML: {error}")) from error


def stream_xml(folder: Path, name: str) -> Iterator[ElementTree.Element]:
    """Yield the root of an XML file, its children still to come, and then each child when it is whole.

    What was yielded is forgotten when the next is asked for, so that a file may be long.

    Raises:
        Unreadable: It is missing or no XML.
    """
    try:
        with (folder / name).open("rb") as file:
            depth = 0
            for event, element in ElementTree.iterparse(file, ("start", "end")):
                if event == "start":
                    depth += 1
                    if depth == 1:
                        root = element
                        yield root
                    continue
                depth -= 1
                if depth == 1:
                    yield element
                    root.clear()
    except (OSError, ElementTree.ParseError) as error:
        raise Unreadable(Fault(name, "", f"it is no XML that can be read: {error}")) from error


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number and finite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def outside(points: Iterator[tuple[float, float]], width: float, height: float) -> str:
    """Return what is wrong with points that should be finite and in an image; empty if nothing."""
    for x, y in points:
        if not (is_number(x) and is_number(y)):
            return f"({x}, {y}) is no point"
        if not (-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK):
            return f"({x}, {y}) is outside the image of {width} x {height}"
    return ""


def box_fault(left: Any, top: Any, right: Any, bottom: Any, width: float, height: float) -> str:
    """Return what is wrong with a box; empty if nothing."""
    if not all(map(is_number, (left, top, right, bottom))):
        return "the box has a number that is not finite"
    if right <= left or bottom <= top:
        return "the box has no area"
    return outside(iter([(left, top), (right, bottom)]), width, height)


def decimals(texts: list[str]) -> list[float] | None:
    """Return texts as finite numbers; None if one is none."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        return None
    return found if all(map(isfinite, found)) else None
