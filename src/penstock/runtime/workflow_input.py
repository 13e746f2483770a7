"""The input of a workflow, checked against its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from penstock.errors import CallError, ErrorCode

MAX_FAULTS = 20  # told to a caller at once
MAX_SAID = 200  # characters of each; a validator quotes what it refuses


class WorkflowInput:
    """Checks inputs.

    Args:
        schema: JSON Schema (2020-12 unless its `$schema` says otherwise); None takes any object.

    Raises:
        ValueError: It is not a JSON Schema, or refers outside itself.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self.schema: Mapping[str, Any] = schema or {}
        self._validator = None if schema is None else _compile(schema)
        self._defaults = defaults_of(self.schema.get("properties", {}))

    def validate(self, text: bytes) -> dict[str, Any]:
        """Return the input that the JSON object ``text`` gives, with the defaults of the schema's properties
        where it is silent.

        Raises:
            CallError: ``invalid_argument``, with every fault of the input.
        """
        try:
            given = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise CallError(f"input: not JSON: {error}", ErrorCode.INVALID_ARGUMENT) from error
        if not isinstance(given, dict):
            details = [{"path": ["input"], "reason": "type"}]
            raise CallError("input: must be an object", ErrorCode.INVALID_ARGUMENT, details=details)
        completed = {**self._defaults, **given}
        if self._validator is not None:
            self._refuse_faults(completed)
        return completed

    def _refuse_faults(self, given: dict[str, Any]) -> None:
        faults = dict(_faults(self._validator, given))
        if faults:
            details = [{"path": ["input", *path], "reason": reason} for path, reason in faults]
            raise CallError("; ".join(faults.values()), ErrorCode.INVALID_ARGUMENT, details=details)


_Key = tuple[tuple[str | int, ...], str]


def _faults(validator: Any, given: dict[str, Any]) -> Iterator[tuple[_Key, str]]:
    """Yield what is wrong: where and by which keyword, and in words."""
    try:
        for error in islice(validator.iter_errors(given), MAX_FAULTS):
            path = tuple(error.absolute_path)
            if error.validator == "required":
                for name in error.validator_value:
                    if name not in error.instance:
                        yield ((*path, name), "missing"), f"{_say((*path, name))}: field required"
            else:
                yield (path, error.validator), f"{_say(path)}: {error.message[:MAX_SAID]}"
    except RecursionError:
        yield ((), "depth"), "input: nested too deeply"


def _say(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path)) or "input"


def defaults_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default of each property that has one."""
    return {
        name: part["default"]
        for name, part in properties.items()
        if isinstance(part, dict) and "default" in part
    }


def _compile(schema: Mapping[str, Any]) -> Any:
    # Imported where it is needed: few projects have workflows, and it takes a while to load.
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
    except SchemaError as error:
        where = "".join(f".{part}" for part in error.absolute_path)
        raise ValueError(f"input_schema{where} is not JSON Schema: {error.message[:MAX_SAID]}") from error
    # With a registry of its own it fetches nothing.
    validator = kind(schema, registry=Registry())
    _check_references(validator)
    return validator


def _check_references(validator: Any) -> None:
    """Refuse a schema whose references lead out of it, to nothing, or round in a circle."""
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = Resource.from_contents(validator.schema, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).resolver()
    for reference in _references_of(validator.schema):
        if not reference.startswith("#"):
            raise ValueError(f"input_schema refers to {reference}; it may refer to its own parts only (#/…)")
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise ValueError(f"input_schema refers to {reference}, which is not in it") from error
    try:
        validator.is_valid({})
    except RecursionError as error:
        raise ValueError("input_schema refers to itself without end") from error


def _references_of(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _references_of(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references_of(item)
