"""What an item may be, the bytes it becomes, and what is refused with its place named."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import json
import math
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.protocol.values import MAX_DEPTH, encode_value, to_plain

NAN = float("nan")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str, enum.Enum):
    A = "a"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__()


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


class Model(pydantic.BaseModel):
    when: datetime.date = datetime.date(2024, 1, 2)
    score: float = 0.5
    inner: dict[str, Any] = {}


class Blob(pydantic.BaseModel):
    raw: bytes


class Event(msgspec.Struct, tag_field="event", tag="delta", omit_defaults=True):
    text: Any
    note: Any = None


class Scalar:
    """Looks like a numpy scalar: no number itself, but it has an item."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self._value = value

    def item(self) -> Any:
        return self._value


class FloatLike(float):
    """Is a float and more, as numpy.float64 is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"FloatLike({float(self)})"


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("text", "text"),
        (True, True),
        (1.5, 1.5),
        (2**70, 2**70),
        (-(2**63) - 1, -(2**63) - 1),
        ({"n": 2**70}, {"n": 2**70}),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        (Pair(1, 2), [1, 2]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (Colour.RED, "red"),
        ({Colour.RED: Level.HIGH}, {"red": 3}),
        ({"a": Name.A}, {"a": "a"}),
        (Loud("x"), "x"),
        (FloatLike(0.5), 0.5),
        ({"p": FloatLike(0.5)}, {"p": 0.5}),
        (Scalar(7), 7),
        ([Scalar(Scalar(0.5))], [0.5]),
        (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": 0}}),
        (Model(), {"when": "2024-01-02", "score": 0.5, "inner": {}}),
        ({"m": [Model()]}, {"m": [{"when": "2024-01-02", "score": 0.5, "inner": {}}]}),
        (Event("a"), {"event": "delta", "text": "a"}),
        (Event(None), {"event": "delta", "text": None}),
        (Event([Event("b")]), {"event": "delta", "text": [{"event": "delta", "text": "b"}]}),
        (Event(Model()), {"event": "delta", "text": {"when": "2024-01-02", "score": 0.5, "inner": {}}}),
        (Event("null"), {"event": "delta", "text": "null"}),
        (datetime.datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05"),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), "2024-01-02T00:00:00Z"),
        (datetime.timedelta(seconds=1), "PT1S"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_what_an_item_may_be(value: object, expected: object) -> None:
    assert json.loads(encode_value(value)) == expected


@pytest.mark.parametrize(
    ("value", "place", "what"),
    [
        (NAN, "the item", "nan"),
        (math.inf, "the item", "inf"),
        ({"a": [1, -math.inf]}, "the item's a[1]", "-inf"),
        ({"a": Point(NAN)}, "the item's a.x", "nan"),
        (Event(NAN), "the item's text", "nan"),
        (Event({"p": [0.5, NAN]}), "the item's text.p[1]", "nan"),
        ({"m": Model(score=NAN)}, "the item's m.score", "nan"),
        (FloatLike(NAN), "the item", "nan"),
        ({"s": Scalar(NAN)}, "the item's s", "nan"),
        (b"x", "the item", "bytes"),
        ({"x": [1, {"y": bytearray()}]}, "the item's x[1].y", "bytearray"),
        (Model(inner={"b": b"\xff"}), "the item", "Model that cannot be written"),
        ([Blob(raw=b"\xff")], "the item's [0]", "Blob that cannot be written"),
        ({1, 2}, "the item", "set"),
        ({"g": iter(())}, "the item's g", "tuple_iterator"),
        ({"o": object()}, "the item's o", "object"),
        (Event(object()), "the item", "object"),
        (Model, "the item", "ModelMetaclass"),
        ({"p": Point}, "the item's p", "type"),
        ({"c": 1j}, "the item's c", "complex"),
        ({b"k": 1}, "the item", "a key of type bytes"),
        ({"a": {(1, 2): 1}}, "the item's a", "a key of type tuple"),
        ({NAN: 1}, "the item", "a key of type float"),
        ("\ud800", "the item", "lone surrogate"),
        ({"a": ["ok", "x\udfff"]}, "the item's a[1]", "lone surrogate"),
        ({"a": {"\ud83d": 1}}, "the item's a.\\ud83d", "lone surrogate"),
        (Event(["\ud800"]), "the item's text[0]", "lone surrogate"),
    ],
)
def test_what_is_refused_names_its_place(value: object, place: str, what: str) -> None:
    with pytest.raises(CallError) as refused:
        encode_value(value)
    assert refused.value.code is ErrorCode.INVALID_OUTPUT
    assert refused.value.message.startswith(f"{place} is ")
    assert what in refused.value.message


@pytest.mark.parametrize("keys", [{1: "a"}, {0.5: "a"}, {True: "a"}, {None: "a"}, {"1": "a"}])
@pytest.mark.parametrize("beside", [{}, {"slow": 0.5}], ids=["fast way", "slow way"])
def test_keys_that_are_no_text_become_text_as_in_the_standard_library(
    keys: Mapping[Any, str], beside: dict[str, float]
) -> None:
    value = {**keys, **beside}
    assert encode_value(value) == json.dumps(value, separators=(",", ":")).encode()


def nested(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"k": value}
    return value


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_depth_is_bounded(kind: str) -> None:
    assert json.loads(encode_value(nested(MAX_DEPTH, kind))) == nested(MAX_DEPTH, kind)
    with pytest.raises(CallError, match="nested deeper than 64"):
        encode_value(nested(MAX_DEPTH + 1, kind))


def test_cycles_are_refused_at_once_however_they_are_made() -> None:
    ring_list: list[Any] = []
    ring_list.append(ring_list)
    ring_dict: dict[str, Any] = {}
    ring_dict["self"] = ring_dict
    ring_point, ring_event, ring_model = Point(None), Event(None), Model()
    ring_point.x, ring_event.text, ring_model.inner["self"] = ring_point, ring_event, ring_model
    for ring in (ring_list, ring_dict, ring_point, ring_event, ring_model):
        with pytest.raises(CallError) as refused:
            encode_value(ring)
        assert refused.value.code is ErrorCode.INVALID_OUTPUT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(JSON)
def test_json_data_comes_back_as_it_was(value: Any) -> None:
    assert json.loads(encode_value(value)) == value
    assert to_plain(value) == value


@given(JSON)
def test_what_a_struct_holds_comes_back_as_it_was(value: Any) -> None:
    assert json.loads(encode_value(Event(value)))["text"] == value


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | ANY_TEXT | st.binary() | st.complex_numbers(),
        lambda inner: (
            st.lists(inner)
            | st.sets(st.integers())
            | st.dictionaries(ANY_TEXT | st.floats() | st.binary(), inner)
            | st.builds(Event, inner)
        ),
        max_leaves=10,
    )
)
def test_anything_else_is_valid_json_or_a_typed_refusal(value: Any) -> None:
    try:
        text = encode_value(value)
    except CallError as error:
        refused = error
    else:
        json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} was written"))
        return
    assert refused.code is ErrorCode.INVALID_OUTPUT
