"""The JSON Schemas, and through them properties of every type of the protocol.

Values are drawn from the schemas, so that a type that is added is covered without a line here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from penstock.protocol import inference, kv, openai
from penstock.protocol.events import EngineEvent
from penstock.protocol.inference import from_event
from penstock.protocol.schema import DIALECT, TYPES, schemas

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors" / "inference_v0_1.json").read_text(encoding="utf-8")
)
SCHEMAS = schemas()
# From here on the two encoders spell a float's exponent differently (1e+16 and 1e16).
PLAIN_FLOAT = 1e15

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(-PLAIN_FLOAT, PLAIN_FLOAT)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def numbers(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    return st.floats(
        -PLAIN_FLOAT if low is None and above is None else above if low is None else low,
        PLAIN_FLOAT if high is None else high,
        exclude_min=above is not None,
    )


def integers(schema: dict[str, Any]) -> st.SearchStrategy[int]:
    low = schema.get("minimum", schema["exclusiveMinimum"] + 1 if "exclusiveMinimum" in schema else -(2**63))
    return st.integers(low, 2**63 - 1)


def objects(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        return st.dictionaries(st.text(), json_values, max_size=3)
    required = set(schema.get("required", []))
    fields = {name: values(part, defs) for name, part in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in required},
        optional={name: field for name, field in fields.items() if name not in required},
    )


def values(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """JSON values the schema describes; a keyword it does not know fails the tests."""
    if "$ref" in schema:
        return values(defs[schema["$ref"].removeprefix("#/$defs/")], defs)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return st.one_of([values(part, defs) for part in schema[union]])
    if schema["type"] == "array":
        return st.lists(values(schema["items"], defs), max_size=3)
    simple = {"null": st.none(), "boolean": st.booleans(), "string": st.text()}
    if schema["type"] in simple:
        return simple[schema["type"]]
    made = {"number": numbers, "integer": integers}
    return made[schema["type"]](schema) if schema["type"] in made else objects(schema, defs)


def instances(name: str) -> st.SearchStrategy[Any]:
    return values(SCHEMAS[name], SCHEMAS[name].get("$defs", {}))


DRAWN = {name: instances(name) for name in SCHEMAS}
ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in TYPES.items()}
VALIDATORS = {name: Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
named_values = st.sampled_from(sorted(DRAWN)).flatmap(lambda name: st.tuples(st.just(name), DRAWN[name]))


def number_paths(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield from number_paths(member, (*path, key))


def with_value(root: Any, path: tuple[int | str, ...], new: object) -> Any:
    if not path:
        return new
    copy = dict(root) if isinstance(root, dict) else list(root)
    copy[path[0]] = with_value(root[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_is_a_2020_12_schema(name: str) -> None:
    assert SCHEMAS[name]["$schema"] == DIALECT
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_every_public_type_is_listed_in_a_stable_order() -> None:
    listed = list(SCHEMAS)
    assert listed == list(schemas()) == list(TYPES)
    for room in (inference, kv, openai):
        public = {name for name in room.__all__ if name[0].isupper()} - {"WireModel"}
        assert public <= set(listed)


def test_schemas_are_the_callers_own_to_change() -> None:
    schemas()["Request"].clear()
    assert schemas()["Request"] == SCHEMAS["Request"]


@given(named_values)
def test_what_a_schema_accepts_the_type_accepts_and_round_trips(drawn: tuple[str, Any]) -> None:
    name, value = drawn
    adapter = ADAPTERS[name]
    read = adapter.validate_json(json.dumps(value))
    canonical = adapter.dump_json(read)
    again = adapter.validate_json(canonical)
    assert again == read == adapter.validate_python(json.loads(canonical))
    assert adapter.dump_json(again) == canonical
    VALIDATORS[name].validate(json.loads(canonical))


@given(named_values, st.data())
def test_no_number_may_be_non_finite(drawn: tuple[str, Any], data: st.DataObject) -> None:
    name, value = drawn
    paths = list(number_paths(value))
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    broken = with_value(value, path, data.draw(st.sampled_from([math.nan, math.inf, -math.inf])))
    for read in (
        lambda: ADAPTERS[name].validate_python(broken),
        lambda: ADAPTERS[name].validate_json(json.dumps(broken)),
    ):
        with pytest.raises(ValidationError) as caught:
            read()
        tag = (value["event"],) if name == "StreamEvent" else ()
        found = [(error["loc"], error["type"]) for error in caught.value.errors()]
        assert found == [((*tag, *path), "finite_number")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_schemas_agree_with_the_recorded_cases(case: dict[str, Any]) -> None:
    """A schema describes the canonical form, so it takes a valid case's and refuses an invalid input."""
    validator = VALIDATORS[case["type"]]
    if case["valid"]:
        validator.validate(json.loads(case["canonical_json"]))
    else:
        assert not validator.is_valid(case["input"])


def test_only_the_tag_tells_the_events_of_the_union_apart() -> None:
    start = {"request_id": "q", "trace_id": "t", "engine_id": "e"}
    assert VALIDATORS["StreamEventStart"].is_valid(start)
    assert not VALIDATORS["StreamEvent"].is_valid(start)
    assert VALIDATORS["StreamEvent"].is_valid({"event": "start", **start})


@given(DRAWN["StreamEvent"])
def test_engine_events_encode_to_the_canonical_json(value: dict[str, Any]) -> None:
    model = inference.parse_stream_event(value)
    canonical = model.model_dump_json()
    event: EngineEvent = msgspec.json.decode(canonical, type=EngineEvent)
    assert from_event(event) == model
    assert msgspec.json.encode(event).decode() == canonical
