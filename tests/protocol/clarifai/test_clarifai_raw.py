from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai import raw
from protocol.clarifai.kinds import unhurried


@unhurried
@given(st.text(), st.binary(), st.lists(st.text(max_size=5), max_size=3))
def test_what_is_written_is_read(model: str, image: bytes, names: list[str]) -> None:
    request = service_pb2.PostModelOutputsRequest(model_id=model.encode("utf-8", "replace").decode())
    for name in names:
        data = request.inputs.add().data
        data.parts.add(id=name.encode("utf-8", "replace").decode()).data.image.base64 = image
    response = service_pb2.MultiOutputResponse(outputs=[resources_pb2.Output(prompt_tokens=3)])
    assert raw.read_request(raw.write_request(request)) == request
    assert raw.read_response(raw.write_response(response)) == response
    assert set(json.loads(raw.write_request(request))) == {"request"}


@unhurried
@given(st.binary() | st.text().map(lambda text: json.dumps({"request": text, "response": text}).encode()))
def test_garbage_raises_nothing_else(text: bytes) -> None:
    with suppress(CallError):
        raw.read_request(text)
    with suppress(CallError):
        raw.read_response(text)


@pytest.mark.parametrize("text", [b"", b"1", b"{}", b"[]", b'{"request":"!","response":"!"}', b"\xff"])
def test_garbage_is_refused(text: bytes) -> None:
    with pytest.raises(CallError) as request:
        raw.read_request(text)
    with pytest.raises(CallError) as response:
        raw.read_response(text)
    assert request.value.code is ErrorCode.INVALID_ARGUMENT
    assert response.value.code is ErrorCode.INVALID_OUTPUT


@pytest.mark.parametrize(("depth", "refused"), [(30, False), (400, True), (3_000, True)])
def test_a_message_that_is_nested_too_deep_is_refused(depth: int, refused: bool) -> None:
    data = b""
    for _ in range(depth):
        data = field(resources_pb2.Data, "parts", field(resources_pb2.Part, "data", data))
    given = field(resources_pb2.Input, "data", data)
    request = field(service_pb2.PostModelOutputsRequest, "inputs", given)
    text = json.dumps({"request": base64.b64encode(request).decode()}).encode()
    if not refused:
        assert raw.read_request(text).SerializeToString() == request
        return
    with pytest.raises(CallError, match="not a raw request") as error:
        raw.read_request(text)
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_model_offers_its_rpcs() -> None:
    post, generate, stream = raw.offers("toy", 3)
    assert [offer.name for offer in (post, generate, stream)] == [
        "toy.PostModelOutputs",
        "toy.GenerateModelOutputs",
        "toy.StreamModelOutputs",
    ]
    assert [offer.streaming for offer in (post, generate, stream)] == [False, True, True]
    assert [offer.takes_stream for offer in (post, generate, stream)] == [False, False, True]
    assert {offer.concurrency for offer in (post, generate, stream)} == {3}


def field(kind: type[Message], name: str, value: bytes) -> bytes:
    """Return a field of a message as it is serialized."""
    tag = kind.DESCRIPTOR.fields_by_name[name].number << 3 | 2
    return varint(tag) + varint(len(value)) + value


def varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))
