"""``${input.a.b}`` and ``${steps.id.a.0}``: paths into a workflow's input and into finished steps (WIRE.md
section 4).  A reference only looks something up; nothing is ever evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import CallError, ErrorCode

_MARK = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")
_PART = re.compile(r"[^\s.${}]+\Z")
_INDEX = re.compile(r"[0-9]{1,9}\Z")


@dataclass(frozen=True)
class Scope:
    """What references can reach: the input, and by id the answer of every step that is over."""

    input: Any
    steps: Mapping[str, Any]


@dataclass(frozen=True)
class Reference:
    """One reference, as ``text`` between its braces.

    Attributes:
        step: The step it looks into; None for the input.
        path: Keys and indexes from there.
    """

    text: str
    step: str | None
    path: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read what stands between ``${`` and ``}``.

        Raises:
            ValueError: It is not a reference; the message says what one looks like.
        """
        root, *path = text.strip().split(".")
        if not all(_PART.match(part) for part in (root, *path)):
            raise ValueError(f"${{{text}}} is no path; write ${{input.name}} or ${{steps.id.name}}")
        if root == "input":
            return cls(text.strip(), None, tuple(path))
        if root == "steps" and path:
            return cls(text.strip(), path[0], tuple(path[1:]))
        raise ValueError(f"${{{text}}} leads nowhere; begin with `input.` or `steps.<id>`")

    def resolve(self, scope: Scope) -> Any:
        """Return what is there.

        Raises:
            CallError: Nothing is: ``invalid_argument`` in the input, ``command_failed`` in a step's answer.
        """
        value = scope.input if self.step is None else scope.steps[self.step]
        for part in self.path:
            value = self._enter(value, part)
        return value

    def _enter(self, value: Any, part: str) -> Any:
        if isinstance(value, dict) and part in value:
            return value[part]
        if isinstance(value, list) and _INDEX.match(part) and int(part) < len(value):
            return value[int(part)]
        code = ErrorCode.INVALID_ARGUMENT if self.step is None else ErrorCode.COMMAND_FAILED
        detail = {"reference": self.text, "reason": "missing"}
        raise CallError(f"${{{self.text}}} leads to nothing: there is no {part!r}", code, details=[detail])


@dataclass(frozen=True)
class Text:
    """Text with references inside: strings go in as they are, the rest as JSON."""

    parts: tuple[str | Reference, ...]

    def resolve(self, scope: Scope) -> str:
        """Return the text, filled in."""
        return "".join(
            part if isinstance(part, str) else _as_text(part.resolve(scope)) for part in self.parts
        )


@dataclass(frozen=True)
class Template:
    """A value of a manifest with references in it, at any depth."""

    value: Any

    @classmethod
    def parse(cls, value: object) -> Template:
        """Find the references in ``value``.

        Raises:
            ValueError: One of them is ill-formed.
        """
        return cls(_parse(value))

    def references(self) -> Iterator[Reference]:
        """Yield every reference."""
        return _references(self.value)

    def resolve(self, scope: Scope) -> Any:
        """Return the value, filled in.  A reference alone in its string keeps its type.

        Raises:
            CallError: A path is missing.
        """
        return _resolve(self.value, scope)


def _parse(value: object) -> Any:
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, dict):
        return {key: _parse(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_parse(item) for item in value]
    return value


def _parse_text(text: str) -> str | Reference | Text:
    parts: list[str | Reference] = []
    position = 0
    for mark in _MARK.finditer(text):
        parts.append(text[position : mark.start()])
        parts.append(_parse_mark(mark))
        position = mark.end()
    parts.append(text[position:])
    kept = tuple(part for part in parts if part != "")
    if all(isinstance(part, str) for part in kept):
        return "".join(part for part in kept if isinstance(part, str))
    if len(kept) == 1 and isinstance(kept[0], Reference):
        return kept[0]
    return Text(kept)


def _parse_mark(mark: re.Match[str]) -> str | Reference:
    if mark[0] == "$${":
        return "${"
    if not mark[0].endswith("}"):
        raise ValueError(f"{mark[0]} is not closed; add a }}, or write $${{ for the text ${{")
    return Reference.parse(mark[1])


def _references(value: object) -> Iterator[Reference]:
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, Text):
        yield from (part for part in value.parts if isinstance(part, Reference))
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)


def _resolve(value: Any, scope: Scope) -> Any:
    if isinstance(value, (Reference, Text)):
        return value.resolve(scope)
    if isinstance(value, dict):
        return {key: _resolve(item, scope) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, scope) for item in value]
    return value


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
