from __future__ import annotations

import json
from contextlib import suppress
from inspect import Parameter as Given
from types import ModuleType
from typing import Any

import jsonschema
import msgspec
import numpy
import pytest
from clarifai_grpc.grpc.api import resources_pb2 as proto
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.integrations.model_folder import data_types
from penstock.integrations.model_folder.conversion import Conversion
from penstock.protocol.clarifai import signatures, values
from penstock.protocol.clarifai.schemas import schema_of
from penstock.protocol.dispatch import CommandDescription
from penstock.runtime.parameters import InputSchema, Parameter
from protocol.clarifai.kinds import SIMPLE, T, Type, field, kinds, method, texts, typed_values, unhurried

GREET = method(
    "greet",
    field("name", T.STR, description="Who"),
    field("times", T.INT, default="2"),
    field("loud", T.BOOL, default="false"),
    field("hint", T.STR, default="null"),
)
CHAT = method("chat", field("lines", T.TEXT, iterator=True), field("mark", T.STR), kind="STREAMING_STREAMING")


def command(
    input_schema: dict[str, Any], item_schema: dict[str, Any] | None = None, *, streaming: bool = False
):
    return CommandDescription(
        description="", streaming=streaming, input_schema=input_schema, item_schema=item_schema or {}
    )


def arguments(**schemas: Any) -> dict[str, Any]:
    return {"type": "object", "properties": schemas, "required": sorted(schemas)}


# -- methods as commands -------------------------------------------------------------------------------


def test_a_method_is_a_command() -> None:
    ((offer, signature),) = signatures.offers("toy", [GREET], 3)
    assert (offer.name, offer.concurrency, signature) == ("toy.greet", 3, GREET)
    assert (offer.streaming, offer.takes_stream) == (False, False)
    assert offer.item_schema == {"type": "string"}
    assert offer.input_schema == {
        "type": "object",
        "title": "Input",
        "properties": {
            "name": {"type": "string", "description": "Who"},
            "times": {"type": "integer", "default": 2},
            "loud": {"type": "boolean", "default": False},
            "hint": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "additionalProperties": False,
        "required": ["name"],
    }


def test_a_method_that_takes_a_stream() -> None:
    ((offer, _),) = signatures.offers("toy", [CHAT])
    assert (offer.streaming, offer.takes_stream) == (True, True)
    assert offer.input_schema["required"] == ["mark"]
    assert offer.input_schema["properties"]["lines"]["x-stream"] is True
    assert signatures.signature_of("chat", offer) == CHAT


def test_methods_that_json_cannot_call_are_left_out() -> None:
    deep = Type(type=T.STR)
    for _ in range(70):
        deep = Type(type=T.LIST, type_args=[deep])
    two = method("two", field("a", T.STR), gives=T.STR)
    two.output_fields.add(name="more", type=T.STR)
    hidden = [
        method("alien", field("a", 99)),
        method("empty", field("a", T.LIST)),
        method("inner", field("a", Type(type=T.LIST, type_args=[Type(type=98)]))),  # type: ignore[arg-type]
        method("deep", field("a", deep)),
        method("gives", gives=97),
        method("unary", field("a", T.STR, iterator=True), kind="STREAMING_UNARY"),
        method("streams", field("a", T.STR, iterator=True)),
        method("chat", field("a", T.STR), kind="STREAMING_STREAMING"),
        two,
    ]
    assert [offer.name for offer, _ in signatures.offers("toy", [*hidden, GREET])] == ["toy.greet"]


def test_bounds_and_choices() -> None:
    count = field("n", T.INT, default="3")
    count.model_type_range_info.min, count.model_type_range_info.max = 1, 9
    low = field("t", T.FLOAT, default="0.5")
    low.model_type_range_info.min = 0.1  # the SDK says 0 where nothing is said
    choice = field("mode", T.STR, default="fast")
    for each in ("fast", "best"):
        choice.model_type_enum_options.add(id=each)
    sizes = field("size", T.INT, default="1")
    for each in ("1", "two"):
        sizes.model_type_enum_options.add(id=each)
    ((offer, signature),) = signatures.offers("toy", [method("m", count, low, choice, sizes)])
    properties = offer.input_schema["properties"]
    assert properties["n"] == {"type": "integer", "minimum": 1, "maximum": 9, "default": 3}
    assert properties["t"] == {"type": "number", "minimum": 0.1, "default": 0.5}
    assert properties["mode"] == {"type": "string", "enum": ["fast", "best"], "default": "fast"}
    assert properties["size"] == {"type": "integer", "default": 1}
    back = signatures.signature_of("m", offer)
    assert (back.input_fields[0], back.input_fields[2]) == (
        signature.input_fields[0],
        signature.input_fields[2],
    )


@pytest.mark.parametrize(
    ("kind", "default", "expected"),
    [
        (T.STR, "", ""),
        (T.STR, "5", "5"),
        (T.STR, '"x"', '"x"'),
        (T.STR, "null", None),
        (T.INT, "5", 5),
        (T.BOOL, "True", True),
        (T.JSON_DATA, '{"a": [1]}', {"a": [1]}),
        (T.INT, "five", msgspec.UNSET),
        (T.JSON_DATA, "NaN", msgspec.UNSET),
    ],
)
def test_defaults(kind: int, default: str, expected: Any) -> None:
    ((offer, _),) = signatures.offers("toy", [method("m", field("a", kind, default=default))])
    schema = offer.input_schema["properties"]["a"]
    assert schema.get("default", msgspec.UNSET) == expected
    assert "required" not in offer.input_schema


# -- there and back ------------------------------------------------------------------------------------


@unhurried
@given(st.lists(kinds, max_size=3), kinds, st.sampled_from(["UNARY_UNARY", "UNARY_STREAMING"]))
def test_a_method_comes_back_from_its_command(given_kinds: Any, gives: Any, kind: str) -> None:
    fields = [field(f"a{index}", each) for index, (each, _) in enumerate(given_kinds)]
    signature = method("m", *fields, gives=gives[0], kind=kind)
    ((offer, _),) = signatures.offers("toy", [signature])
    assert unnamed(signatures.signature_of("m", offer)) == unnamed(signature)


def unnamed(message: Any) -> Any:
    """Return a signature without the names that its inner types have only for show; a list of anything is
    JSON."""
    found = type(message)()
    found.CopyFrom(message)

    def strip(kind: Type) -> None:
        for inner in kind.type_args:
            if kind.type != T.NAMED_FIELDS:
                inner.name = ""
            strip(inner)
        if kind.type == T.LIST and kind.type_args[0].type == T.JSON_DATA:
            kind.type = T.JSON_DATA
            kind.ClearField("type_args")

    for each in (*found.input_fields, *found.output_fields):
        strip(each)
    return found


@unhurried
@given(typed_values())
def test_what_a_type_takes_fits_its_schema(typed: tuple[Type, Any]) -> None:
    kind, value = typed
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


@unhurried
@given(st.lists(st.builds(lambda name: method(name), texts), unique_by=lambda each: each.name))
def test_signatures_as_text(given_signatures: list[proto.MethodSignature]) -> None:
    text = signatures.write_signatures([GREET, CHAT, *given_signatures])
    assert signatures.read_signatures(text)[:2] == [GREET, CHAT]


@unhurried
@given(st.text() | st.dictionaries(texts, st.dictionaries(texts, st.none() | texts)).map(json.dumps))
def test_garbage_is_read_or_refused(text: str) -> None:
    with suppress(CallError):
        signatures.read_signatures(text)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a":' * 9000, " " * 5_000_000])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(CallError, match="the signatures cannot be read") as refused:
        signatures.read_signatures(text)
    assert refused.value.code is ErrorCode.INVALID_OUTPUT


# -- commands as methods -------------------------------------------------------------------------------

WORDS = (
    "type properties items prefixItems minItems maxItems anyOf $ref required default enum const minimum "
    "maximum format description x-clarifai x-stream $defs a"
)
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | texts
ANYTHING = st.recursive(
    SCALARS | st.sampled_from(["#/$defs/a", "array", "object", "number", "named_fields"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS.split()), inner, max_size=5)
    ),
    max_leaves=12,
)


@unhurried
@given(st.dictionaries(st.sampled_from(["properties", "required", "$defs", "type"]), ANYTHING), ANYTHING)
def test_any_schema_has_a_signature(input_schema: dict[str, Any], item_schema: Any) -> None:
    shown = command(input_schema, item_schema if isinstance(item_schema, dict) else {}, streaming=True)
    signature = signatures.signature_of("m", shown)
    assert len(signature.output_fields) == 1


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, T.STR),
        ({"enum": ["a", "b"]}, T.STR),
        ({"const": "a"}, T.STR),
        ({"type": "string", "format": "base64url"}, T.BYTES),
        ({"type": "string", "format": "binary"}, T.BYTES),
        ({"type": "integer"}, T.INT),
        ({"type": "number"}, T.FLOAT),
        ({"type": "boolean"}, T.BOOL),
        ({}, T.JSON_DATA),
        (True, T.JSON_DATA),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, T.JSON_DATA),
        ({"type": ["string", "null"]}, T.JSON_DATA),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, T.JSON_DATA),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}, T.JSON_DATA),
        ({"type": "array", "items": {}}, T.JSON_DATA),
        ({"type": "array"}, T.JSON_DATA),
        ({"type": "array", "items": {"type": "integer"}}, T.LIST),
        ({"$ref": "#/$defs/loop"}, T.JSON_DATA),
        ({"$ref": "#/$defs/none"}, T.JSON_DATA),
        ({"$ref": "#/$defs/number"}, T.INT),
        ({"$ref": "#/$defs/nested"}, T.LIST),
    ],
)
def test_inputs_have_the_type_that_fits_best(schema: Any, kind: int) -> None:
    defs = {
        "loop": {"$ref": "#/$defs/loop"},
        "number": {"type": "integer"},
        "nested": {"type": "array", "items": {"$ref": "#/$defs/nested"}},
    }
    signature = signatures.signature_of("m", command({**arguments(a=schema), "$defs": defs}))
    assert signature.input_fields[0].type == kind


def test_optional_inputs() -> None:
    maybe = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    shown = command(arguments(a=maybe, b={**maybe, "default": "x"}, c={"type": "integer", "default": 3}))
    a, b, c = signatures.signature_of("m", shown).input_fields
    assert [(each.type, each.required, each.default) for each in (a, b, c)] == [
        (T.STR, False, "null"),
        (T.STR, False, "x"),
        (T.INT, False, "3"),
    ]


def test_a_stream_of_input_needs_a_stream_of_output() -> None:
    lines = {"type": "array", "items": {"type": "string"}, "x-stream": True}
    shown = {"type": "object", "properties": {"lines": lines}}
    (field,) = signatures.signature_of("m", command(shown, streaming=True)).input_fields
    assert (field.type, field.iterator) == (T.STR, True)
    (field,) = signatures.signature_of("m", command(shown)).input_fields
    assert (field.type, field.iterator) == (T.LIST, False)


# -- the forms of model folders ------------------------------------------------------------------------

HINTS: dict[str, tuple[Any, int]] = {
    "bytes": (bytes, T.BYTES),
    "text": (data_types.Text, T.TEXT),
    "image": (data_types.Image, T.IMAGE),
    "audio": (data_types.Audio, T.AUDIO),
    "video": (data_types.Video, T.VIDEO),
    "concept": (data_types.Concept, T.CONCEPT),
    "region": (data_types.Region, T.REGION),
    "frame": (data_types.Frame, T.FRAME),
    "json": (data_types.JSON, T.JSON_DATA),
    "dict": (dict[str, int], T.JSON_DATA),
    "array": (numpy.ndarray, T.NDARRAY),
    "named": (data_types.NamedFields(x=str, y=int), T.NAMED_FIELDS),
    "images": (list[data_types.Image], T.LIST),
    "pair": (tuple[int, data_types.Image], T.TUPLE),
}


@pytest.mark.parametrize("name", HINTS)
def test_the_types_of_model_folders_are_found_in_their_schemas(name: str) -> None:
    hint, kind = HINTS[name]
    schema = InputSchema((Parameter("a", form(hint), Given.empty, False),), "m").json_schema
    (found,) = signatures.signature_of("m", command(schema)).input_fields
    assert found.type == kind
    if name == "images":
        assert found.type_args[0].type == T.IMAGE
    if name in ("named", "pair"):
        assert [each.type for each in found.type_args] == (
            [T.STR, T.INT] if name == "named" else [T.INT, T.IMAGE]
        )


def form(hint: Any) -> Any:
    class NoParam:
        pass

    module: ModuleType = data_types
    return Conversion(module, NoParam).hint(hint)


SHARED = [T.STR, T.BYTES, T.NDARRAY, T.TEXT, T.IMAGE, T.AUDIO, T.VIDEO, T.CONCEPT, T.REGION, T.FRAME]


@unhurried
@given(
    st.sampled_from(SHARED).flatmap(lambda kind: SIMPLE[kind].map(lambda value: (field("a", kind), value)))
)
def test_model_folders_take_what_is_read(typed: tuple[Type, Any]) -> None:
    from pydantic import TypeAdapter

    kind, value = typed
    hint = next((hint for hint, each in HINTS.values() if each == kind.type), str)
    found = values.from_data(values.to_data(value, kind), kind)
    TypeAdapter(form(hint)).validate_json(json.dumps(found))
