"""Files written piece by piece: JSON with long lists, XML with long contents, and numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from xml.sax.saxutils import escape, quoteattr

import msgspec

_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Millionths of a pixel are noise of the arithmetic.
_PLACES = 6


def number(value: float, places: int = _PLACES) -> int | float:
    """Return a number as it is written: rounded, and whole where it is."""
    rounded = round(value, places)
    return int(rounded) if rounded == int(rounded) else rounded


def numbers(values: Iterable[float], places: int = _PLACES) -> list[int | float]:
    """Return numbers as they are written."""
    return [number(value, places) for value in values]


def text_of(value: Any) -> str:
    """Return a value as one line of JSON, the same for the same value."""
    return msgspec.json.encode(value).decode("utf-8")


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Open a file to be written, with its folders, the same bytes on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document of small size, to be read by people too."""
    with opened(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_members(file: TextIO, members: Mapping[str, Any]) -> None:
    """Write a JSON object; members that are iterators become lists, an element on each line."""
    for place, (name, value) in enumerate(members.items()):
        file.write("{" if not place else ",\n")
        file.write(f"{text_of(name)}:")
        if isinstance(value, Iterator):
            write_list(file, value)
        else:
            file.write(text_of(value))
    file.write("}\n")


def write_list(file: TextIO, values: Iterable[Any]) -> None:
    """Write a JSON list, an element on each line."""
    file.write("[")
    for place, value in enumerate(values):
        file.write(",\n" if place else "\n")
        file.write(text_of(value))
    file.write("]")


class Xml:
    """XML written element by element.

    Args:
        file: Where to.
        declared: It begins with what XML it is; some readers of text refuse that.
    """

    def __init__(self, file: TextIO, declared: bool = True) -> None:
        self._file = file
        self._open: list[str] = []
        if declared:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n')

    @contextmanager
    def inside(self, name: str, /, **attributes: object) -> Iterator[None]:
        """Write an element around what is written meanwhile."""
        self._line(f"<{name}{_attributes(attributes)}>")
        self._open.append(name)
        yield
        self._open.pop()
        self._line(f"</{name}>")

    def leaf(self, name: str, text: object = "", /, **attributes: object) -> None:
        """Write an element that holds text, or nothing."""
        start = f"<{name}{_attributes(attributes)}"
        self._line(f"{start}>{escape(clean(text))}</{name}>" if text != "" else f"{start}/>")

    def _line(self, text: str) -> None:
        self._file.write(f"{'  ' * len(self._open)}{text}\n")


def _attributes(attributes: Mapping[str, object]) -> str:
    return "".join(f" {name.rstrip('_')}={quoteattr(clean(value))}" for name, value in attributes.items())


def clean(value: object) -> str:
    """Return a value as text, the characters that XML cannot hold as what they are called in programs."""
    return _NOT_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))


def one_line(label: str) -> str:
    """Return a label without what anybody takes for the end of a line."""
    return "_".join(label.splitlines())
