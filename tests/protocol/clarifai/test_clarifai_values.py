from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from clarifai_grpc.grpc.api import resources_pb2 as proto
from clarifai_grpc.grpc.api import service_pb2
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai import values
from protocol.clarifai.kinds import T, Type, field, kinds, method, texts, typed_values, unhurried

PNG = base64.b64encode(b"\x89PNG").decode()
GREET = method("greet", field("name", T.STR), field("times", T.INT, default="2"), field("loud", T.BOOL))
CHAT = method(
    "chat",
    field("lines", T.STR, iterator=True),
    field("mark", T.STR, default="!"),
    kind="STREAMING_STREAMING",
)


def data_of(text: bytes) -> proto.Data:
    return proto.Data.FromString(text)


# -- values --------------------------------------------------------------------------------------------


@unhurried
@given(typed_values())
def test_what_is_written_is_read(typed: tuple[Type, Any]) -> None:
    kind, value = typed
    data = values.to_data(value, kind)
    assert values.from_data(data_of(data.SerializeToString()), kind) == plain(value)


def plain(value: Any) -> Any:
    """Return a value as it is read: what may be left out is left out."""
    if isinstance(value, dict):
        empty = {name for name in ("base64", "id") if value.get(name) == ""}
        return {name: plain(item) for name, item in value.items() if name not in empty}
    return [plain(item) for item in value] if isinstance(value, list) else value


@unhurried
@given(kinds, st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | texts, st.lists))
def test_a_value_of_another_type_is_refused(typed: tuple[Type, Any], value: Any) -> None:
    with suppress(CallError):
        values.from_data(values.to_data(value, typed[0]), typed[0])


@unhurried
@given(st.binary(), kinds)
def test_garbage_is_read_or_refused(text: bytes, typed: tuple[Type, Any]) -> None:
    with suppress(DecodeError, CallError):
        values.from_data(data_of(text), typed[0])


@unhurried
@given(typed_values(), typed_values())
def test_data_of_another_type_is_read_or_refused(one: tuple[Type, Any], other: tuple[Type, Any]) -> None:
    data = values.to_data(*reversed(one))
    with suppress(CallError):
        values.from_data(data, other[0])


def test_whole_numbers_in_json_are_integers() -> None:
    data = values.to_data({"a": [1, 2.0, 2.5, -(2**53)]}, Type(type=T.JSON_DATA))
    found = values.from_data(data, Type(type=T.JSON_DATA))
    assert json.dumps(found) == '{"a": [1, 2, 2.5, -9007199254740992]}'


def test_lists_and_scalars_are_wrapped_in_json() -> None:
    for value, name in (([1], "_list"), ("x", "_value"), (None, "_value")):
        data = values.to_data(value, Type(type=T.JSON_DATA))
        assert list(data.struct_value.fields) == [name]
        assert values.from_data(data, Type(type=T.JSON_DATA)) == value


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (T.STR, 1, "should be a string"),
        (T.STR, "\ud800", "lone surrogate"),
        (T.INT, True, "should be an integer"),
        (T.INT, 1.5, "should be an integer"),
        (T.INT, 2**63, "at most 64 bits"),
        (T.FLOAT, "1", "should be a number"),
        (T.FLOAT, True, "should be a number"),
        (T.FLOAT, 10**400, "double precision"),
        (T.BOOL, 0, "true or false"),
        (T.BYTES, "é", "base64"),
        (T.BYTES, "a", "base64"),
        (T.JSON_DATA, {"a": 2**53 + 1}, "a: 9007199254740993 is more exact"),
        (T.JSON_DATA, [10**400], "_list.0: too large"),
        (T.TEXT, {"txt": 1}, "txt"),
        (T.IMAGE, {}, "give base64, or a url"),
        (T.IMAGE, {"base64": "!"}, "base64: should be base64"),
        (T.CONCEPT, {"value": 1}, "name"),
        (T.CONCEPT, {"name": "a", "value": 1e300}, "single precision"),
        (T.REGION, {"box": [1, 2, 3]}, "box"),
        (T.FRAME, {"time": -1}, "time is seconds"),
        (T.FRAME, {"index": 2**32}, "index"),
        (T.NDARRAY, {"buffer": "", "shape": [0], "dtype": "object"}, "dtype"),
        (T.NDARRAY, {"buffer": "", "shape": [-1], "dtype": "int8"}, "shape"),
        (T.NOT_SET, 1, "number 0, is not known"),
        (T.LIST, [1], "a list of nothing"),
    ],
)
def test_what_is_refused_is_named(kind: int, value: Any, said: str) -> None:
    with pytest.raises(CallError, match=said.replace(".", r"\.")) as refused:
        values.to_data(value, field("x", kind))
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_fault_is_named_by_its_place() -> None:
    inner = Type(type=T.NAMED_FIELDS, type_args=[field("x", T.STR), field("y", T.INT)])
    listed = Type(type=T.LIST, type_args=[Type(type=T.TUPLE, type_args=[inner])])
    for value, place in (([[{"x": "", "y": ""}]], "0.0.y"), ([[{"x": ""}]], "0.0.y"), ([[]], "0")):
        with pytest.raises(CallError, match=f"^{place}: "):
            values.to_data(value, listed)
    with pytest.raises(CallError, match=r"^0\.0\.z: unknown; known are x, y"):
        values.to_data([[{"x": "", "y": 1, "z": 1}]], listed)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_what_is_too_deep_for_others_to_read_is_refused(wrap: Any) -> None:
    value, depth, signature = None, 0, method("m", gives=T.JSON_DATA)
    with suppress(CallError):
        while depth < 100:
            data = values.to_output(json.dumps([value]).encode(), signature)
            output = service_pb2.MultiOutputResponse(outputs=[proto.Output(data=data)])
            message = service_pb2.PostRunnerItemOutputsRequest()
            message.runner_item_outputs.add().multi_output_response.CopyFrom(output)
            assert type(message).FromString(message.SerializeToString()) == message
            value, depth = wrap(value), depth + 1
    assert 25 < depth < 50
    with pytest.raises(CallError, match="nested deeper than Clarifai's messages can be"):
        values.to_output(json.dumps([value]).encode(), signature)


def test_deep_types_are_refused() -> None:
    kind, value = Type(type=T.STR), "x"
    for _ in range(60):
        kind, value = Type(type=T.LIST, type_args=[kind]), [value]  # type: ignore[assignment]
    with pytest.raises(CallError, match="nested deeper"):
        values.to_data(value, kind)


def test_numbers_that_json_has_not_are_refused() -> None:
    struct = struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=float("inf"))})
    for data, kind in (
        (proto.Data(float_value=float("nan")), T.FLOAT),
        (proto.Data(struct_value=struct), T.JSON_DATA),
        (proto.Data(concepts=[proto.Concept(value=float("nan"))]), T.CONCEPT),
    ):
        with pytest.raises(CallError, match="JSON has no such number"):
            values.from_data(data, field("x", kind))


def test_single_precision_is_read_short() -> None:
    data = values.to_data({"name": "cat", "value": 0.1}, field("x", T.CONCEPT))
    assert data.concepts[0].value != 0.1
    assert values.from_data(data, field("x", T.CONCEPT)) == {"name": "cat", "value": 0.1}


# -- inputs --------------------------------------------------------------------------------------------


def test_an_input_has_a_part_for_each_argument() -> None:
    found = values.input_from_json(b'{"name": "you", "loud": false}', GREET)
    assert [part.id for part in found.data.parts] == ["name", "loud"]
    assert found.data.metadata.fields["_method_name"].string_value == "greet"
    assert json.loads(values.json_from_input(found, GREET)) == {"name": "you", "loud": False}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "input: not JSON"),
        (b"[]", "input: should be an object"),
        (b'{"name": "you"}', "loud: field required"),
        (b'{"name": 1, "loud": true}', "name: should be a string"),
        (b'{"nam": "you"}', "nam: unknown input; known are name, times, loud"),
        (b'{"name": "you", "loud": true, "times": null}', "times: should be an integer"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(CallError, match=said) as refused:
        values.input_from_json(text, GREET)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_null_for_a_default_of_none_is_not_sent_and_comes_back() -> None:
    signature = method("m", field("a", T.STR), field("b", T.STR, default="null"))
    found = values.input_from_json(b'{"a": "x", "b": null}', signature)
    assert [part.id for part in found.data.parts] == ["a"]
    assert json.loads(values.json_from_input(found, signature)) == {"a": "x", "b": None}


def test_the_first_argument_may_stand_in_the_data_itself() -> None:
    data = proto.Data(string_value="you", parts=[proto.Part(id="loud", data=proto.Data(bool_value=True))])
    assert json.loads(values.json_from_input(proto.Input(data=data), GREET)) == {"name": "you", "loud": True}
    listed = method("m", field("xs", Type(type=T.LIST, type_args=[field("x", T.INT)])), field("n", T.INT))
    parts = [proto.Part(data=proto.Data(int_value=number)) for number in (1, 2)]
    given = proto.Input(data=proto.Data(parts=parts))
    assert json.loads(values.json_from_input(given, listed)) == {"xs": [1, 2]}
    given = proto.Input(data=proto.Data(parts=[proto.Part(id="n", data=proto.Data(int_value=3))]))
    assert json.loads(values.json_from_input(given, listed)) == {"n": 3}


def test_what_the_method_does_not_have_is_there_for_the_command_to_refuse() -> None:
    given = values.input_from_json(b'{"name": "you", "loud": true}', GREET)
    given.data.parts.add(id="lout")
    assert json.loads(values.json_from_input(given, GREET)) == {"name": "you", "loud": True, "lout": None}


def test_the_old_format() -> None:
    see = method(
        "see", field("image", T.IMAGE), field("prompt", T.STR), field("more", T.JSON_DATA, default="{}")
    )
    data = proto.Data(
        image=proto.Image(url="http://x"), text=proto.Text(raw="a cat?"), string_value='{"n": 1}'
    )
    assert values.is_old(data)
    found = json.loads(values.json_from_input(proto.Input(data=data), see))
    assert found == {"image": {"url": "http://x"}, "prompt": "a cat?", "more": {"n": 1}}
    output = values.to_output(b'"yes"', see, old=True)
    assert (output.string_value, output.text.raw, len(output.parts)) == ("yes", "yes", 0)
    data = proto.Data(concepts=[proto.Concept(name="a"), proto.Concept(name="b")], int_value=3)
    listed = method("m", field("cs", Type(type=T.LIST, type_args=[field("c", T.CONCEPT)])), field("n", T.INT))
    found = json.loads(values.json_from_input(proto.Input(data=data), listed))
    assert [concept["name"] for concept in found["cs"]] == ["a", "b"]
    assert found["n"] == 3
    with pytest.raises(CallError, match="more: not JSON"):
        values.json_from_input(
            proto.Input(data=proto.Data(string_value="{")), method("m", field("more", T.JSON_DATA))
        )


def test_metadata_alone_is_no_old_format() -> None:
    given = values.input_from_json(b'{"mark": "?"}', CHAT)
    given.data.ClearField("parts")
    assert not values.is_old(given.data)
    assert values.json_from_input(given, CHAT) == b"{}"


def test_a_stream_begins_with_its_arguments_and_first_item() -> None:
    text = b'{"lines": ["a", "b"], "mark": "?"}'
    arguments, items = values.input_from_json(text, CHAT), values.items_of(text, CHAT)
    first = values.joined(arguments, items[0])
    assert sorted(part.id for part in first.data.parts) == ["lines", "mark"]
    assert json.loads(values.json_from_input(first, CHAT)) == {"lines": ["a"], "mark": "?"}
    request = service_pb2.PostModelOutputsRequest(inputs=[items[1]])
    assert values.item_from_request(request, CHAT) == b'"b"'
    assert values.item_from_json(b'"b"', CHAT) == items[1]
    assert values.items_of(b"{}", CHAT) == []


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "0 inputs"),
        ([proto.Input(), proto.Input()], "2 inputs"),
        ([proto.Input()], "lines: field required"),
        ([proto.Input(data=proto.Data(parts=[proto.Part(id="mark")]))], "lines: field required"),
    ],
)
def test_an_item_that_is_none_is_refused(inputs: list[proto.Input], said: str) -> None:
    with pytest.raises(CallError, match=said):
        values.item_from_request(service_pb2.PostModelOutputsRequest(inputs=inputs), CHAT)
    with pytest.raises(CallError, match="greet takes no stream"):
        values.item_from_json(b"1", GREET)
    with pytest.raises(CallError, match="lines: should be an array"):
        values.items_of(b'{"lines": 1}', CHAT)


def test_the_method_is_named_in_the_metadata() -> None:
    request = service_pb2.PostModelOutputsRequest()
    assert values.method_of(request, "predict") == "predict"
    request.inputs.add().data.metadata.update({"_method_name": 3})
    assert values.method_of(request, "predict") == "predict"
    request.inputs[0].data.metadata.update({"_method_name": "greet"})
    assert values.method_of(request, "predict") == "greet"


# -- answers -------------------------------------------------------------------------------------------


@unhurried
@given(typed_values())
def test_an_answer_is_the_part_return(typed: tuple[Type, Any]) -> None:
    kind, value = typed
    signature, text = method("m", gives=kind), json.dumps(value).encode()
    data = values.to_output(text, signature)
    assert [part.id for part in data.parts] == ([] if value is None else ["return"])
    assert json.loads(values.from_output(data, signature)) == plain(value)


def test_null_is_no_answer() -> None:
    data = values.to_output(b"null", method("m", gives=T.JSON_DATA))
    assert not data.parts
    assert values.from_output(data, method("m", gives=T.JSON_DATA)) == b"null"


def test_an_answer_of_another_type_is_a_fault_of_the_command() -> None:
    with pytest.raises(CallError, match="item: should be a string") as refused:
        values.to_output(b"1", GREET)
    assert refused.value.code is ErrorCode.INVALID_OUTPUT
    pair = Type(type=T.TUPLE, type_args=[field("a", T.STR), field("b", T.STR)])
    with pytest.raises(CallError, match="parts") as refused:
        values.from_output(proto.Data(parts=[proto.Part(id="0")]), method("m", gives=pair))
    assert refused.value.code is ErrorCode.INVALID_OUTPUT


def test_media_in_either_alphabet_of_base64() -> None:
    for text in ("-_-_", "+/+/", "+/8=", "-_8"):
        data = values.to_data({"base64": text}, field("x", T.IMAGE))
        assert data.image.base64[:1] == b"\xfb"
    assert values.from_data(values.to_data({"base64": PNG}, field("x", T.AUDIO)), field("x", T.AUDIO)) == {
        "base64": PNG
    }


# -- garbage -------------------------------------------------------------------------------------------

WIDE = method(
    "wide",
    field("xs", Type(type=T.LIST, type_args=[field("x", T.INT)])),
    field("pair", Type(type=T.TUPLE, type_args=[field("a", T.STR), field("b", T.IMAGE)])),
    field("more", T.JSON_DATA, default="null"),
    field("stream", T.REGION, iterator=True),
    kind="STREAMING_STREAMING",
)
IDS = st.sampled_from(["", "xs", "pair", "more", "stream", "0", "1", "return", "other"])
SCALARS = st.one_of(
    st.fixed_dictionaries({"string_value": texts}),
    st.fixed_dictionaries({"int_value": st.integers(-(2**63), 2**63 - 1)}),
    st.fixed_dictionaries({"float_value": st.floats()}),
    st.fixed_dictionaries({"text": st.fixed_dictionaries({"raw": texts})}),
    st.fixed_dictionaries({"image": st.fixed_dictionaries({"base64": st.binary(max_size=4)})}),
    st.fixed_dictionaries(
        {"regions": st.lists(st.fixed_dictionaries({"value": st.floats(width=32)}), max_size=2)}
    ),
    st.fixed_dictionaries({"struct_value": st.dictionaries(texts, st.floats() | texts, max_size=2)}),
)
DATA = st.recursive(
    SCALARS.map(lambda fields: proto.Data(**fields)),
    lambda inner: st.lists(st.tuples(IDS, inner), max_size=4).map(
        lambda parts: proto.Data(parts=[proto.Part(id=name, data=data) for name, data in parts])
    ),
    max_leaves=8,
)


@unhurried
@given(DATA)
def test_any_data_is_read_or_refused(data: proto.Data) -> None:
    given_input = proto.Input(data=data)
    with suppress(CallError):
        assert isinstance(json.loads(values.json_from_input(given_input, WIDE)), dict)
    with suppress(CallError):
        request = service_pb2.PostModelOutputsRequest(inputs=[given_input])
        json.loads(values.item_from_request(request, WIDE))
    with suppress(CallError):
        json.loads(values.from_output(data, method("m", gives=WIDE.input_fields[1])))


@unhurried
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(DecodeError, CallError):
        values.json_from_input(proto.Input.FromString(text), WIDE)
    with suppress(CallError):
        values.input_from_json(text, WIDE)
    with suppress(CallError):
        values.to_output(text, WIDE)


def test_what_is_huge_is_read_at_once() -> None:
    listed = method("m", field("xs", Type(type=T.LIST, type_args=[field("x", T.INT)])), gives=T.JSON_DATA)
    text = json.dumps({"xs": list(range(200_000))}).encode()
    given_input = values.input_from_json(text, listed)
    assert json.loads(values.json_from_input(given_input, listed)) == json.loads(text)
    wide = json.dumps({str(number): number for number in range(50_000)}).encode()
    assert json.loads(values.from_output(values.to_output(wide, listed), listed)) == json.loads(wide)
    deep = b'{"xs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(CallError):
        values.input_from_json(deep, listed)
