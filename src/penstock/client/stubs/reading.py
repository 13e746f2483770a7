"""JSON Schemas, read into types.  What a type cannot say, such as a pattern, is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from penstock.client.stubs.types import (
    ANYTHING,
    Choice,
    Field,
    ListOf,
    MapOf,
    Method,
    Named,
    OneOf,
    Plain,
    Shape,
    Stubs,
    TupleOf,
    Type,
)
from penstock.client.transport import Offer
from penstock.protocol.dispatch import CommandDescription, WorkflowDescription

_BASIC = {
    "string": Plain("text"),
    "integer": Plain("integer"),
    "number": Plain("number"),
    "boolean": Plain("boolean"),
    "null": Plain("null"),
}
_REFERENCE = "#/$defs/"
# What the modules that are written have already, and what their languages do not let a name be.
_RESERVED = frozenset(
    (
        "Any",
        "AsyncClient",
        "AsyncStream",
        "CallOptions",
        "Client",
        "CommandOptions",
        "False",
        "Literal",
        "None",
        "NotRequired",
        "Promise",
        "Readonly",
        "Record",
        "Stream",
        "StreamOptions",
        "True",
        "TypedDict",
        "Union",
        "Unpack",
    )
)
_BINARY = frozenset(("binary", "base64", "base64url"))


def read_offer(name: str, version: str, offer: Offer) -> Stubs:
    """Return the types of what a server offers; the same ones for the same offer.

    Args:
        name: Of the project.
        version: Of the project.
        offer: What can be called.
    """
    calls = pascal(name) if pascal(name) not in _RESERVED else f"{pascal(name)}Calls"
    reader = _Reader({*_RESERVED, calls, f"Async{calls}"})
    methods = [reader.command(each, offer.commands[each]) for each in sorted(offer.commands)]
    methods += [reader.workflow(each, offer.workflows[each]) for each in sorted(offer.workflows)]
    return Stubs(_clean(f"{name} {version}"), calls, tuple(reader.shapes.values()), _distinct(methods))


def pascal(text: str) -> str:
    """Return ``text`` as the name of a class."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return joined if joined[:1].isalpha() else f"X{joined}"


def snake(text: str) -> str:
    """Return ``text`` as the name of a method."""
    name = "_".join(re.findall(r"[A-Za-z0-9]+", text))
    return name if name[:1].isalpha() else f"x{name}"


def _distinct(methods: list[Method]) -> tuple[Method, ...]:
    """Give methods that would have one name several."""
    taken, named = {"client"}, []
    for method in methods:
        name = method.name
        while name in taken:
            name += "_"
        taken.add(name)
        named.append(method._replace(name=name))
    return tuple(named)


class _Reader:
    """Reads schemas, and gathers the shapes that they name."""

    def __init__(self, taken: set[str]) -> None:
        self.shapes: dict[str, Shape] = {}
        self._taken = taken
        self._known: dict[str, str] = {}  # by what a schema says, whole
        self._defs: Mapping[str, Any] = {}
        self._inside: tuple[str, ...] = ()  # of definitions that are no objects: whether they hold themselves
        self._owner = ""

    def command(self, name: str, described: CommandDescription) -> Method:
        """Return a command's method."""
        self._owner = pascal(name)
        takes, optional = self._input(described.input_schema)
        gives = self._whole(described.item_schema, "Item" if described.streaming else "Answer")
        return Method(
            snake(name),
            name,
            _clean(described.description) or _clean(f"Run {name}."),
            takes,
            optional,
            gives,
            described.streaming,
        )

    def workflow(self, name: str, described: WorkflowDescription) -> Method:
        """Return a workflow's method."""
        self._owner = pascal(name)
        takes, optional = self._input(described.input_schema)
        about = _clean(described.description or "") or _clean(f"Run the workflow {name}.")
        return Method(snake(name), name, about, takes, optional, ANYTHING, streams=True, is_workflow=True)

    def _input(self, schema: Mapping[str, Any]) -> tuple[Type | None, bool]:
        closed = schema.get("additionalProperties") is False
        if not schema.get("properties") and closed:
            return None, True
        return self._whole(schema, "Input"), not schema.get("required")

    def _whole(self, schema: Mapping[str, Any], role: str) -> Type:
        self._defs = schema.get("$defs", {})
        return self._read(schema, self._owner + role)

    def _read(self, schema: Any, name: str) -> Type:
        if not isinstance(schema, Mapping):
            return ANYTHING
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(reference)
        if "const" in schema or "enum" in schema:
            return _choice(schema.get("enum", [schema.get("const")]))
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return _one_of([self._read(each, f"{name}{i}") for i, each in enumerate(schema[several], 1)])
        if len(parts := schema.get("allOf", ())) == 1:
            return self._read(parts[0], name)
        kind = schema.get("type")
        if isinstance(kind, list):
            return _one_of([self._read({**schema, "type": each}, name) for each in kind])
        return self._of_type(kind, schema, name)

    def _of_type(self, kind: Any, schema: Mapping[str, Any], name: str) -> Type:
        if kind == "array":
            if "prefixItems" in schema:
                return TupleOf(
                    tuple(self._read(each, f"{name}{i}") for i, each in enumerate(schema["prefixItems"], 1))
                )
            return ListOf(self._read(schema.get("items"), f"{name}Part"))
        if kind == "object":
            if schema.get("properties"):
                return self._shape(schema, name)
            return MapOf(self._read(schema.get("additionalProperties"), f"{name}Value"))
        binary = {schema.get("format"), schema.get("contentEncoding")} & _BINARY
        return Plain("bytes") if kind == "string" and binary else _BASIC.get(kind, ANYTHING)

    def _referred(self, reference: str) -> Type:
        key = reference.removeprefix(_REFERENCE)
        target = self._defs.get(key) if reference.startswith(_REFERENCE) else None
        if target is None or key in self._inside:
            return ANYTHING
        if target.get("type") == "object" and target.get("properties"):
            return self._shape(target, pascal(key))
        outer, self._inside = self._inside, (*self._inside, key)
        found = self._read(target, pascal(key))
        self._inside = outer
        return found

    def _shape(self, schema: Mapping[str, Any], wanted: str) -> Named:
        says = json.dumps([schema, self._reached(schema)], sort_keys=True)
        # Unlike an object within another, a definition keeps its name wherever it is.
        if says in self._known and wanted in self._known[says]:
            return Named(self._known[says])
        name = self._free(wanted)
        self._known[says] = name
        self.shapes[name] = Shape(name, ())  # its place, before those that it holds
        required = frozenset(schema.get("required", ()))
        fields = tuple(
            Field(key, self._read(of, name + pascal(key)), key in required, _about(of))
            for key, of in schema["properties"].items()
        )
        self.shapes[name] = Shape(name, fields, _about(schema))
        return Named(name)

    def _reached(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the definitions that a schema needs, and those that they need."""
        reached: dict[str, Any] = {}
        texts = [json.dumps(schema)]
        while texts:
            for key in re.findall(r'"#/\$defs/([^"]+)"', texts.pop()):
                if key not in reached and key in self._defs:
                    reached[key] = self._defs[key]
                    texts.append(json.dumps(reached[key]))
        return reached

    def _free(self, wanted: str) -> str:
        name, number = wanted, 2
        if name in self._taken:
            name = wanted if wanted.startswith(self._owner) else self._owner + wanted
        while name in self._taken:
            name, number = f"{wanted}{number}", number + 1
        self._taken.add(name)
        return name


def _about(schema: Any) -> str:
    return _clean(str(schema.get("description", ""))) if isinstance(schema, Mapping) else ""


def _clean(text: str) -> str:
    """Return a text without what no comment may hold."""
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text).strip()


def _choice(values: list[Any]) -> Type:
    plain = all(value is None or isinstance(value, (str, int)) for value in values)
    return Choice(tuple(values)) if values and plain else ANYTHING


def _one_of(options: list[Type]) -> Type:
    flat: list[Type] = []
    for option in options:
        flat += option.options if isinstance(option, OneOf) else (option,)
    distinct = tuple(dict.fromkeys(flat))
    if not distinct or ANYTHING in distinct:
        return ANYTHING
    return distinct[0] if len(distinct) == 1 else OneOf(distinct)
