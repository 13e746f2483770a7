"""Between the types of a method's signature and JSON Schema.

What JSON Schema has no word for is marked with ``x-clarifai``, so that the way back finds it: an image is an
object with that mark.  The forms are those of model folders, which mark theirs alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeGuard

import msgspec

from penstock.protocol.clarifai.codecs import T, Type
from penstock.protocol.clarifai.shapes import single
from penstock.protocol.marks import CLARIFAI as MARK

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_BASE64: Schema = {"type": "string", "format": "base64"}
_BYTES = ("base64", "base64url", "binary")  # what bytes are called; all of it is base64
_DEPTH = 16  # of a schema's arrays: a recursive one is JSON from there on
_CHOICES = 256


def _object(properties: Schema, *required: str) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


def _numbers(count: int) -> Schema:
    return {"type": "array", "items": _NUMBER, "minItems": count, "maxItems": count}


_MEDIA = _object({"base64": _BASE64, "url": _TEXT})
_CONCEPT = _object({"name": _TEXT, "value": _NUMBER, "id": _TEXT}, "name")
_REGION = _object(
    {
        "id": _TEXT,
        "box": _numbers(4),
        "point": _numbers(3),
        "mask": _MEDIA,
        "concepts": {"type": "array", "items": _CONCEPT},
        "text": _TEXT,
        "track_id": _TEXT,
    }
)
_FRAME = _object(
    {
        "image": _MEDIA,
        "regions": {"type": "array", "items": _REGION},
        "time": {"type": "number", "minimum": 0, "description": "seconds"},
        "index": {"type": "integer", "minimum": 0},
    }
)
_ARRAY = _object(
    {"buffer": _BASE64, "shape": {"type": "array", "items": {"type": "integer"}}, "dtype": _TEXT},
    "buffer",
    "shape",
    "dtype",
)

_PLAIN: Mapping[int, Schema] = {
    T.STR: _TEXT,
    T.BYTES: _BASE64,
    T.INT: {"type": "integer"},
    T.FLOAT: _NUMBER,
    T.BOOL: {"type": "boolean"},
    T.JSON_DATA: {},
}
_MARKED: Mapping[T.ValueType, tuple[str, Schema]] = {
    T.NDARRAY: ("ndarray", _ARRAY),
    T.TEXT: ("text", {"anyOf": [_TEXT, _object({"text": _TEXT, "url": _TEXT})]}),
    T.IMAGE: ("image", _MEDIA),
    T.CONCEPT: ("concept", _CONCEPT),
    T.REGION: ("region", _REGION),
    T.FRAME: ("frame", _FRAME),
    T.AUDIO: ("audio", _MEDIA),
    T.VIDEO: ("video", _MEDIA),
}
_NAMED = "named_fields"
_BY_MARK: Mapping[str, T.ValueType] = {mark: kind for kind, (mark, _) in _MARKED.items()} | {
    _NAMED: T.NAMED_FIELDS
}
_BY_TYPE: Mapping[str, T.ValueType] = {
    "string": T.STR,
    "integer": T.INT,
    "number": T.FLOAT,
    "boolean": T.BOOL,
}


# -- from a type ---------------------------------------------------------------------------------------


def schema_of(kind: Type) -> Schema:
    """Return the JSON Schema of a type that is known (``codecs.is_known``)."""
    if kind.type in _MARKED:
        mark, schema = _MARKED[kind.type]
        return {MARK: mark, **deepcopy(schema)}
    inner = [schema_of(each) for each in kind.type_args]
    if kind.type == T.LIST:
        return {"type": "array", "items": inner[0]}
    if kind.type == T.TUPLE:
        return {"type": "array", "prefixItems": inner, "minItems": len(inner), "maxItems": len(inner)}
    if kind.type == T.NAMED_FIELDS:
        names = [each.name for each in kind.type_args]
        return {MARK: _NAMED, **_object(dict(zip(names, inner, strict=True)), *names)}
    return dict(_PLAIN[kind.type])


# -- to a type -----------------------------------------------------------------------------------------


class Reader:
    """Finds the types that the parts of a JSON Schema fit best; what has none is JSON.

    Args:
        root: The whole schema, where its references lead.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def fill(self, kind: Type, schema: object, depth: int = 0) -> None:
        """Fill a type as a part of the schema says it."""
        found, is_nullable = self.resolved(schema)
        if is_nullable or depth > _DEPTH:
            kind.type = T.JSON_DATA
        elif isinstance(mark := found.get(MARK), str) and mark in _BY_MARK:
            kind.type = _BY_MARK[mark]
            if kind.type == T.NAMED_FIELDS:
                self._fill_named(kind, found, depth)
        elif found.get("type") == "array":
            self._fill_array(kind, found, depth)
        elif found.get("type") == "string" and found.get("format") in _BYTES:
            kind.type = T.BYTES
        else:
            kind.type = _BY_TYPE.get(_name_of(found), T.JSON_DATA)

    def resolved(self, schema: object) -> tuple[Schema, bool]:
        """Return a part with its reference followed, and whether it may be null besides."""
        found = self._followed(schema)
        choices = found.get("anyOf")
        if MARK in found or not isinstance(choices, list):
            return found, False
        others = [each for each in choices if self._followed(each).get("type") != "null"]
        if len(others) == len(choices):
            return found, False
        if len(others) != 1:
            return {}, True
        return {**self._followed(others[0]), **{name: found[name] for name in found if name != "anyOf"}}, True

    def _followed(self, schema: object) -> Schema:
        for _ in range(_DEPTH):
            if not isinstance(schema, dict):
                return {}
            target = schema.get("$ref")
            if not isinstance(target, str) or not target.startswith("#/"):
                return schema
            beside = {name: value for name, value in schema.items() if name != "$ref"}
            at = self._at(target)
            schema = {**at, "description": "", **beside} if isinstance(at, dict) else beside
        return {}

    def _at(self, target: str) -> object:
        place: object = self._root
        for step in target[2:].split("/"):
            place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        return place

    def _fill_array(self, kind: Type, schema: Schema, depth: int) -> None:
        items, first = schema.get("items"), schema.get("prefixItems")
        if (
            isinstance(first, list)
            and first
            and schema.get("minItems") == len(first) == schema.get("maxItems")
        ):
            self._fill_all(kind, T.TUPLE, [(f"{kind.name}_item", each) for each in first], depth)
        elif isinstance(items, dict) and items and not first:
            self._fill_all(kind, T.LIST, [(f"{kind.name}_item", items)], depth)
        else:
            kind.type = T.JSON_DATA

    def _fill_named(self, kind: Type, schema: Schema, depth: int) -> None:
        properties = schema.get("properties")
        fields = list(properties.items()) if isinstance(properties, dict) else []
        self._fill_all(kind, T.NAMED_FIELDS, fields, depth)

    def _fill_all(self, kind: Type, outer: T.ValueType, inner: list[tuple[str, object]], depth: int) -> None:
        kind.type = outer
        for name, schema in inner:
            self.fill(kind.type_args.add(name=name), schema, depth + 1)


def _name_of(schema: Schema) -> str:
    """Return the JSON type of a schema: one that is said, or that all its choices have."""
    said = schema.get("type")
    if isinstance(said, str):
        return said
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices):
        return "string"
    return ""


# -- choices, bounds and defaults ----------------------------------------------------------------------


def add_limits(schema: Schema, kind: Type) -> None:
    """Say in a schema what a type says besides: description, choices and bounds."""
    if kind.description:
        schema["description"] = kind.description
    if kind.model_type_enum_options and (read := _CHOICE.get(kind.type)) is not None:
        options = [read(option.id) for option in kind.model_type_enum_options]
        if None not in options:
            schema["enum"] = options
    if kind.HasField("model_type_range_info") and kind.type in (T.INT, T.FLOAT):
        _add_bounds(schema, kind)


def _add_bounds(schema: Schema, kind: Type) -> None:
    low, high = kind.model_type_range_info.min, kind.model_type_range_info.max
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    number = int if kind.type == T.INT else single
    schema["minimum"] = number(low)
    if low < high:  # what was not said is 0
        schema["maximum"] = number(high)


def read_limits(schema: Schema, kind: Type) -> None:
    """Say in a type what a schema says besides."""
    if isinstance(said := schema.get("description"), str):
        kind.description = said
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, list) and len(choices) <= _CHOICES and kind.type in _CHOICE:
        for choice in choices:
            kind.model_type_enum_options.add(id=choice if isinstance(choice, str) else _encode(choice))
    low, high = schema.get("minimum"), schema.get("maximum")
    if kind.type in (T.INT, T.FLOAT) and _is_number(low) and _is_number(high):
        kind.model_type_range_info.min, kind.model_type_range_info.max = float(low), float(high)


def default_of(kind: Type) -> Any:
    """Return the default of an argument that need not be given; UNSET where what it says is none."""
    if kind.type == T.STR and kind.default != "null":
        return kind.default
    try:
        return msgspec.json.decode(kind.default)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        found = {"True": True, "False": False}.get(kind.default) if kind.type == T.BOOL else None
        return msgspec.UNSET if found is None else found


def write_default(kind: Type, default: Any) -> None:
    """Say that an argument need not be given."""
    kind.required = False
    kind.default = default if isinstance(default, str) and kind.type == T.STR else _encode(default)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _number(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        return None


_CHOICE: Mapping[int, Callable[[str], Any]] = {
    T.STR: lambda text: text,
    T.INT: lambda text: _number(int, text),
    T.FLOAT: lambda text: _number(float, text),
}
