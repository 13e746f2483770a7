"""What a caller writes, as it travels."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from typing import Any

import pydantic
import pytest

from penstock.client.request import encode_input, join_input
from penstock.errors import CallError, ErrorCode


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Drawing:
    colour: Colour


class Album(pydantic.BaseModel):
    drawing: Drawing
    taken: datetime.date


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ([1, 2.5, None, True, "é"], [1, 2.5, None, True, "é"]),
        (b"\0\xff", "AP8="),
        (Colour.RED, "red"),
        (Drawing(Colour.RED), {"colour": "red"}),
        (
            Album(drawing=Drawing(Colour.RED), taken=datetime.date(2024, 1, 2)),
            {"drawing": {"colour": "red"}, "taken": "2024-01-02"},
        ),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({1: "a"}, {"1": "a"}),
        (("a", {"b"}), ["a", ["b"]]),
    ],
)
def test_values_become_json(value: object, sent: object) -> None:
    assert json.loads(encode_input({"value": value})) == {"value": sent}


def cycle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    "value", [float("nan"), [{"x": float("-inf")}], object(), "\ud800", cycle(), {(): 1}]
)
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(CallError, match=r"the input cannot be sent: .+") as caught:
        encode_input({"value": value})
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_the_place_is_named() -> None:
    with pytest.raises(CallError, match=r"options\.temperature is nan"):
        encode_input({"options": {"temperature": float("nan")}})


def test_input_is_joined_and_never_changed() -> None:
    given = {"a": 1}
    assert join_input(given, {"b": 2}) == {"a": 1, "b": 2}
    assert join_input(None, {}) == {}
    assert given == {"a": 1}
    with pytest.raises(TypeError, match="a: given in the input and as a keyword"):
        join_input(given, {"a": 2})
