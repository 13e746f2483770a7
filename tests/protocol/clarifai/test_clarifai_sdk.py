"""What is written here the SDK reads, and what it writes is read here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clarifai_grpc.grpc.api import resources_pb2 as proto
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.clarifai.real_parts import PYTHON, needs_clarifai
from penstock.protocol.clarifai import signatures, values
from protocol.clarifai.kinds import T, Type, typed_values
from protocol.clarifai.test_clarifai_values import plain

pytestmark = needs_clarifai


class Serializer:
    """The SDK's serializers, in a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self.signatures = self._output.readline()

    def again(self, pairs: list[tuple[Type, proto.Data]]) -> list[proto.Data]:
        """Return data as the SDK writes the values that it reads of it."""
        given = [(kind.SerializeToString().hex(), data.SerializeToString().hex()) for kind, data in pairs]
        self._input.write(json.dumps(given) + "\n")
        self._input.flush()
        answers = json.loads(self._output.readline())
        assert [answer for answer in answers if not set(answer) <= set("0123456789abcdef")] == []
        return [proto.Data.FromString(bytes.fromhex(answer)) for answer in answers]


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serializer]:
    with subprocess.Popen(
        [str(PYTHON), str(Path(__file__).with_name("sdk_serializer.py"))],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path_factory.mktemp("home"))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Serializer(process)
        process.kill()


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(typed=st.lists(typed_values(), min_size=10, max_size=40))
def test_values_go_through_the_sdk(sdk: Serializer, typed: list[tuple[Type, Any]]) -> None:
    pairs = [(kind, values.to_data(value, kind)) for kind, value in typed]
    for (kind, value), data in zip(typed, sdk.again(pairs), strict=True):
        assert known(values.from_data(data, kind), kind) == known(plain(value), kind)


def known(value: Any, kind: Type) -> Any:
    """Return a value less what the SDK adds: the id of a concept is made of its name."""
    if kind.type == T.CONCEPT:
        return {name: each for name, each in value.items() if name != "id"}
    if kind.type == T.NAMED_FIELDS:
        return {inner.name: known(value[inner.name], inner) for inner in kind.type_args}
    if kind.type == T.LIST:
        return [known(each, kind.type_args[0]) for each in value]
    if kind.type == T.TUPLE:
        return [known(each, inner) for each, inner in zip(value, kind.type_args, strict=True)]
    return value


def test_signatures_of_the_sdk_are_commands(sdk: Serializer) -> None:
    many, talk = (offer for offer, _ in signatures.offers("toy", signatures.read_signatures(sdk.signatures)))
    properties = many.input_schema["properties"]
    assert (many.name, many.description, talk.takes_stream) == ("toy.many", "Do much.", True)
    assert many.input_schema["required"] == ["text", "image", "pairs", "fields", "plain"]
    assert properties["image"]["x-clarifai"] == "image"
    assert properties["pairs"]["items"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert properties["fields"]["properties"] == {"x": {"type": "string"}, "y": {"type": "number"}}
    assert properties["plain"] == {}
    assert (properties["count"]["minimum"], properties["count"]["maximum"]) == (1, 9)
    assert properties["count"]["description"] == "how many"
    assert properties["mode"]["enum"] == ["a", "b"]
    assert properties["hint"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert (properties["loud"]["default"], properties["more"]["default"]) == (True, {})
    assert many.item_schema["items"]["x-clarifai"] == "image"
    assert talk.input_schema["properties"]["texts"]["x-stream"] is True


def test_signatures_go_to_the_sdk_and_back(sdk: Serializer) -> None:
    found = signatures.read_signatures(sdk.signatures)
    assert signatures.read_signatures(signatures.write_signatures(found)) == found
