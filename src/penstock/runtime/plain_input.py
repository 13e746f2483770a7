"""A quick look at an input: does it plainly fit a JSON Schema that somebody else has given?

Only what is simple is judged, in time that grows with the input and not with what the schema makes of it:
whoever gave it must not be able to hold up everybody.  What is not plain may well fit; whose command it is
has to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.protocol import marks

_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
_WORDS = frozenset(
    ("title", "description", "default", "examples", "deprecated", marks.STREAM, marks.CLARIFAI)
)
"""What asks for nothing."""
_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
_DEPTH = 4
_CHOICES = 8
_ITEMS = 256


def plainly_fits(value: object, schema: object) -> bool:
    """Whether an input is an object with all the names it needs and no others, and values of plain types.

    Args:
        value: Decoded JSON.
        schema: Decoded JSON; whatever it is, this raises nothing.
    """
    if not isinstance(value, dict) or not isinstance(schema, dict):
        return False
    known, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(known, dict) or not isinstance(required, list):
        return False
    if not all(isinstance(name, str) and name in value for name in required):
        return False
    if not schema.keys() - _WORDS - {"type", "required"}:
        return bool(schema.get("type", "object") == "object")
    return all(name in known and _fits(item, known[name], _DEPTH) for name, item in value.items())


def _fits(value: object, schema: object, depth: int) -> bool:
    if not isinstance(schema, dict) or not depth:
        return False
    asked = schema.keys() - _WORDS
    if not asked:
        return True
    choices = schema.get("anyOf")
    if asked == {"anyOf"} and isinstance(choices, list):
        return any(_fits(value, choice, depth - 1) for choice in choices[:_CHOICES])
    kinds = _KINDS.get(schema["type"]) if isinstance(schema.get("type"), str) else None
    if kinds is None or type(value) not in kinds:
        return False
    asked -= {"type"}
    if isinstance(value, list):
        return _list_fits(value, schema, asked, depth)
    if isinstance(value, (int, float)) and asked <= _NUMBERS:
        return _number_fits(value, schema)
    return not asked or (isinstance(value, dict) and asked == {"additionalProperties"} and _is_open(schema))


def _list_fits(value: list[object], schema: Mapping[str, Any], asked: set[str], depth: int) -> bool:
    if not asked:
        return True
    if asked != {"items"} or len(value) > _ITEMS:
        return False
    return all(_fits(item, schema["items"], depth - 1) for item in value)


def _number_fits(value: float, schema: Mapping[str, Any]) -> bool:
    bounds = {name: schema[name] for name in _NUMBERS if name in schema}
    if not all(type(bound) in (int, float) for bound in bounds.values()):
        return False
    return (
        value >= bounds.get("minimum", value)
        and value <= bounds.get("maximum", value)
        and ("exclusiveMinimum" not in bounds or value > bounds["exclusiveMinimum"])
        and ("exclusiveMaximum" not in bounds or value < bounds["exclusiveMaximum"])
    )


def _is_open(schema: Mapping[str, Any]) -> bool:
    return schema["additionalProperties"] is True
