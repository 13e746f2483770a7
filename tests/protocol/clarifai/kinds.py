"""Types of Clarifai's signatures, each with JSON values that it takes."""

from __future__ import annotations

import base64
import struct
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2 as proto
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

T = proto.ModelTypeField.DataType
Type = proto.ModelTypeField
Typed = tuple[Type, st.SearchStrategy[Any]]

unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For machines that have other things to do as well."""

texts = st.text(st.characters(codec="utf-8"), max_size=20)
some = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
encoded = st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode())
filled = st.binary(min_size=1, max_size=20).map(lambda data: base64.b64encode(data).decode())
doubles = st.floats(allow_nan=False, allow_infinity=False)


def short(value: float) -> float:
    """Return the shortest number that is the same in single precision."""
    packed, shorter = struct.pack("<f", value), (float(f"{value:.{digits}g}") for digits in range(6, 10))
    return next(each for each in shorter if abs(each) < 3.4028235e38 and struct.pack("<f", each) == packed)


singles = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False).map(short)
media = st.fixed_dictionaries({"base64": filled}) | st.fixed_dictionaries(
    {"url": some}, optional={"base64": filled}
)
concepts = st.fixed_dictionaries({"name": texts, "value": singles}, optional={"id": some})
regions = st.fixed_dictionaries(
    {},
    optional={
        "id": some,
        "box": st.lists(singles, min_size=4, max_size=4),
        "point": st.lists(singles, min_size=3, max_size=3),
        "mask": media,
        "concepts": st.lists(concepts, min_size=1, max_size=2),
        "text": some,
        "track_id": some,
    },
)
frames = st.fixed_dictionaries(
    {"time": st.integers(0, 2**32 - 1).map(lambda ms: ms / 1000), "index": st.integers(0, 2**32 - 1)},
    optional={"image": media, "regions": st.lists(regions, min_size=1, max_size=2)},
)
arrays = st.builds(
    lambda numbers: {
        "buffer": base64.b64encode(struct.pack(f"<{len(numbers)}i", *numbers)).decode(),
        "shape": [len(numbers)],
        "dtype": "int32",
    },
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4),
)
numbers = st.integers(-(2**53), 2**53) | doubles
jsons = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: not (isinstance(value, dict) and len(value) == 1 and {"_list", "_value"} & set(value)))

SIMPLE: dict[int, st.SearchStrategy[Any]] = {
    T.STR: texts,
    T.BYTES: encoded,
    T.INT: st.integers(-(2**63), 2**63 - 1),
    T.FLOAT: doubles,
    T.BOOL: st.booleans(),
    T.NDARRAY: arrays,
    T.JSON_DATA: jsons,
    T.TEXT: texts | st.fixed_dictionaries({"text": texts, "url": some}),
    T.IMAGE: media,
    T.CONCEPT: concepts,
    T.REGION: regions,
    T.FRAME: frames,
    T.AUDIO: media,
    T.VIDEO: media,
}

simple = st.sampled_from(sorted(SIMPLE)).map(lambda kind: (Type(type=kind), SIMPLE[kind]))


def _list(inner: Typed) -> Typed:
    kind, values = inner
    return Type(type=T.LIST, type_args=[kind]), st.lists(values, max_size=3)


def _tuple(inner: list[Typed]) -> Typed:
    kinds = [kind for kind, _ in inner]
    values = st.tuples(*(each for _, each in inner)).map(list)
    return Type(type=T.TUPLE, type_args=kinds), values


def _named(inner: list[Typed]) -> Typed:
    fields = [(f"f{index}", kind, values) for index, (kind, values) in enumerate(inner)]
    named = []
    for name, kind, _ in fields:
        copy = Type()
        copy.CopyFrom(kind)
        copy.name = name
        named.append(copy)
    values = st.fixed_dictionaries({name: values for name, _, values in fields})
    return Type(type=T.NAMED_FIELDS, type_args=named), values


def outer(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    several = st.lists(inner, min_size=1, max_size=3)
    return inner.map(_list) | several.map(_tuple) | several.map(_named)


kinds: st.SearchStrategy[Typed] = st.recursive(simple, outer, max_leaves=4)


def typed_values() -> st.SearchStrategy[tuple[Type, Any]]:
    """Types, each with a value."""
    return kinds.flatmap(lambda typed: typed[1].map(lambda value: (typed[0], value)))


def field(name: str, kind: int | Type, **more: Any) -> Type:
    """Return an argument of a method."""
    found = Type()
    if isinstance(kind, Type):
        found.CopyFrom(kind)
    else:
        found.type = kind  # type: ignore[assignment]
    found.name = name
    found.required = "default" not in more
    for each, value in more.items():
        setattr(found, each, value)
    return found


def method(
    name: str,
    *fields: Type,
    gives: int | Type = T.STR,
    kind: str = "UNARY_UNARY",
) -> proto.MethodSignature:
    """Return the signature of a method."""
    found = proto.MethodSignature(name=name, method_type=kind, input_fields=fields)  # type: ignore[arg-type]
    answer = field("return", gives)
    answer.required, answer.iterator = False, kind != "UNARY_UNARY"
    found.output_fields.append(answer)
    return found
