"""YAML with its lines: what a manifest says, and where it says it.

Scalars are read by the core schema of YAML 1.2, so that ``on``, ``no``, ``1_000`` and ``12:30`` are text;
keys are text always, as they are written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from penstock.errors import ManifestError

MAX_BYTES = 1024 * 1024
MAX_VALUES = 20_000  # counted after aliases: a few lines of them can stand for millions of values
MAX_DEPTH = 48

Place = tuple[str | int, ...]
"""Keys and indexes that lead to a value."""


class Fault(NamedTuple):
    """A mistake: where it stands and what is wrong."""

    place: Place
    message: str


class Document:
    """The value of a YAML file, and the lines its parts stand on.

    Args:
        file: How the file is called in messages.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.value: Any = None
        self.lines: dict[Place, int] = {}
        self.written: dict[Place, str] = {}  # scalars that are not text, as their author wrote them

    def where(self, place: Place) -> str:
        """Return ``file:line`` of a place; of what encloses it, where it is not there."""
        while place not in self.lines and place:
            place = place[:-1]
        return f"{self.file}:{self.lines.get(place, 1)}"

    def resolve(self, location: Iterable[str | int]) -> Place:
        """Return the place that a validator's location means, without the marks it adds for its own types."""
        place: Place = ()
        for part in location:
            if (*place, part) in self.lines:
                place = (*place, part)
        return place


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ManifestError: It cannot be read, or is not YAML that can be taken; with its line.
    """
    text = _read_text(path)
    document = Document(str(path))
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            document.value = _Reading(document).value(node, ())
    except yaml.MarkedYAMLError as error:
        raise ManifestError(_say_syntax(path, error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ManifestError(
            f"{path}:{line}: a control character; remove what stands in column "
            f"{error.position - text.rfind(chr(10), 0, error.position)}"
        ) from error
    except RecursionError as error:
        raise ManifestError(f"{path}: nested too deeply to be a manifest") from error
    return document


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ManifestError(f"{path} has {len(raw)} bytes; a manifest has at most {MAX_BYTES}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path}:{line}: this is not UTF-8 text; save the file as UTF-8") from error


def _say_syntax(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    problem = error.problem or str(error)
    if r"'\t'" in problem:
        return f"{where}: a tab; YAML indents with spaces, so replace it"
    if "expected a single document" in str(error.context):
        return f"{where}: a second document begins here; a manifest is one, so remove the `---`"
    context = f" ({error.context})" if error.context else ""
    return f"{where}: this is not YAML: {problem}{context}"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - replaces those of YAML 1.1


_PREFIX = "tag:yaml.org,2002:"
_MERGE = _PREFIX + "merge"
_RESOLVED = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
)
for _name, _pattern, _first in _RESOLVED:
    _Loader.add_implicit_resolver(_PREFIX + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


class _Reading:
    """Turns nodes into values, within bounds."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        """Return the value of a node.

        Raises:
            ManifestError: A tag, a number or a key that cannot be taken, or too many values.
        """
        self._check(node, len(place))
        self._document.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in (_PREFIX + "map", _PREFIX + "seq"):
            raise self._bad_tag(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]

    def _check(self, node: yaml.Node, depth: int) -> None:
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise self._refusal(node, "too many or too deeply nested values (an alias that repeats itself?)")

    def _mapping(
        self, node: yaml.MappingNode, place: Place, known: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """Return a mapping but for the keys that are ``known`` already, to which a merged one gives way."""
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE and self._key(key_node) not in known:
                self._add(mapping, key_node, value_node, place)
        for key_node, value_node in node.value:
            for base in self._bases(value_node) if key_node.tag == _MERGE else ():
                self._check(base, len(place))
                mapping.update(self._mapping(base, place, known.union(mapping)))
        return mapping

    def _add(self, mapping: dict[str, Any], key_node: yaml.Node, value_node: yaml.Node, place: Place) -> None:
        key = self._key(key_node)
        here = (*place, key)
        if key in mapping:
            first = self._document.lines[here]
            raise self._refusal(key_node, f"{key} stands here again, first on line {first}; keep one")
        mapping[key] = self.value(value_node, here)
        # Where a value begins on a line of its own, its author still looks for the key.
        self._document.lines[here] = key_node.start_mark.line + 1

    def _bases(self, node: yaml.Node) -> list[yaml.MappingNode]:
        """Return the mappings that `<<` names, those that win first."""
        bases = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for base in bases:
            if not isinstance(base, yaml.MappingNode):
                raise self._refusal(base, "`<<` takes a mapping, such as an alias of one")
        return list(bases)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._refusal(node, "a key is plain text, not a list or a mapping")
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_PREFIX)
        if kind in ("str", "merge"):
            return text
        if kind == "null":
            return None
        self._document.written[place] = text
        if kind == "bool":
            return text.lower() == "true"
        if kind not in ("int", "float"):
            raise self._bad_tag(node)
        return self._number(node, kind)

    def _number(self, node: yaml.ScalarNode, kind: str) -> int | float:
        text: str = node.value
        try:
            number = float(text) if kind == "float" else int(text, 0 if text[:2] in ("0x", "0o") else 10)
        except ValueError as error:
            raise self._refusal(node, f"{text[:40]} is not a number that can be read") from error
        if number in (math.inf, -math.inf):
            raise self._refusal(node, f"{text[:40]} is more than a number can be")
        return number

    def _bad_tag(self, node: yaml.Node) -> ManifestError:
        return self._refusal(node, f"the tag {node.tag} has no meaning in a manifest; remove it")

    def _refusal(self, node: yaml.Node, what: str) -> ManifestError:
        return ManifestError(f"{self._document.file}:{node.start_mark.line + 1}: {what}")
