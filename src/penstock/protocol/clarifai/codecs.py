"""Between JSON values and ``Data``, by the types that a method's signature names.

Both directions are those of the SDK's serializers: a simple value has a field of its own, a list is parts
without ids (or the repeated field, where there is one), a tuple is parts "0", "1", ..., and named fields are
parts by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from clarifai_grpc.grpc.api import resources_pb2 as proto

from penstock.protocol.clarifai import shapes
from penstock.protocol.clarifai.misfits import Misfit
from penstock.protocol.clarifai.structs import read_struct, write_struct

Type = proto.ModelTypeField
T = proto.ModelTypeField.DataType

ROOM = 90
"""Levels of messages within a ``Data``: readers take 100, and what it stands in has some of them."""
_PART_LEVELS = 2  # a part, and its data


def write(value: Any, kind: Type, data: proto.Data, room: int = ROOM) -> None:
    """Fill ``data`` with a JSON value.

    Args:
        room: How many levels of messages there may be.

    Raises:
        Misfit: It is not of this type.
    """
    if room < 0:
        raise Misfit("nested deeper than Clarifai's messages can be")
    try:
        if (writer := _WRITERS.get(kind.type)) is not None:
            writer(value, data)
        elif (container := _CONTAINERS.get(kind.type)) is not None:
            container[0](value, kind, data, room)
        elif kind.type == T.JSON_DATA:
            data.struct_value.SetInParent()
            write_struct(value, data.struct_value, room)
        else:
            raise Misfit(_unknown(kind))
    except UnicodeEncodeError:
        raise Misfit("text with a lone surrogate, which UTF-8 cannot carry") from None


def read(data: proto.Data, kind: Type) -> Any:
    """Return ``data`` as a JSON value.

    Raises:
        Misfit: It is not of this type.
    """
    if (reader := _READERS.get(kind.type)) is not None:
        return reader(data)
    if (container := _CONTAINERS.get(kind.type)) is not None:
        return container[1](data, kind)
    raise Misfit(_unknown(kind))


def is_known(kind: Type) -> bool:
    """Whether values of this type can be converted."""
    if kind.type == T.LIST and not kind.type_args:
        return False
    return (kind.type in _READERS or kind.type in _CONTAINERS) and all(map(is_known, kind.type_args))


# -- simple values -------------------------------------------------------------------------------------


def _write_str(value: Any, data: proto.Data) -> None:
    if not isinstance(value, str):
        raise Misfit("should be a string")
    data.string_value = value


def _write_int(value: Any, data: proto.Data) -> None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Misfit("should be an integer")
    if not -(2**63) <= value < 2**63:
        raise Misfit("should be an integer of at most 64 bits")
    data.int_value = value


def _write_float(value: Any, data: proto.Data) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Misfit("should be a number")
    try:
        data.float_value = float(value)
    except OverflowError:
        raise Misfit("should be a number of double precision") from None


def _read_float(data: proto.Data) -> float:
    if not math.isfinite(data.float_value):
        raise Misfit(f"{data.float_value}, and JSON has no such number")
    return data.float_value


def _write_bool(value: Any, data: proto.Data) -> None:
    if not isinstance(value, bool):
        raise Misfit("should be true or false")
    data.bool_value = value


def _write_bytes(value: Any, data: proto.Data) -> None:
    data.bytes_value = shapes.write_bytes(value)


def _read_json(data: proto.Data) -> Any:
    return read_struct(data.struct_value) if data.HasField("struct_value") else None


def _read_array(data: proto.Data) -> Any:
    return shapes.read_array(data.ndarray) if data.HasField("ndarray") else None


def _one(found: list[Any]) -> Any:
    """Return the only one there is, as the SDK does where a field is repeated and the type is not."""
    return found if len(found) > 1 else found[0] if found else None


_WRITERS: Mapping[int, Callable[[Any, proto.Data], None]] = {
    T.STR: _write_str,
    T.BYTES: _write_bytes,
    T.INT: _write_int,
    T.FLOAT: _write_float,
    T.BOOL: _write_bool,
    T.NDARRAY: lambda value, data: shapes.write_array(value, data.ndarray),
    T.TEXT: lambda value, data: shapes.write_text(value, data.text),
    T.IMAGE: lambda value, data: shapes.write_media(value, data.image),
    T.AUDIO: lambda value, data: shapes.write_media(value, data.audio),
    T.VIDEO: lambda value, data: shapes.write_media(value, data.video),
    T.CONCEPT: lambda value, data: shapes.write_concept(value, data.concepts.add()),
    T.REGION: lambda value, data: shapes.write_region(value, data.regions.add()),
    T.FRAME: lambda value, data: shapes.write_frame(value, data.frames.add()),
}

_READERS: Mapping[int, Callable[[proto.Data], Any]] = {
    T.STR: lambda data: data.string_value,
    T.BYTES: lambda data: shapes.read_bytes(data.bytes_value),
    T.INT: lambda data: data.int_value,
    T.FLOAT: _read_float,
    T.BOOL: lambda data: data.bool_value,
    T.NDARRAY: _read_array,
    T.JSON_DATA: _read_json,
    T.TEXT: lambda data: shapes.read_text(data.text) if data.HasField("text") else None,
    T.IMAGE: lambda data: shapes.read_media(data.image) if data.HasField("image") else None,
    T.AUDIO: lambda data: shapes.read_media(data.audio) if data.HasField("audio") else None,
    T.VIDEO: lambda data: shapes.read_media(data.video) if data.HasField("video") else None,
    T.CONCEPT: lambda data: _one([shapes.read_concept(each) for each in data.concepts]),
    T.REGION: lambda data: _one([shapes.read_region(each) for each in data.regions]),
    T.FRAME: lambda data: _one([shapes.read_frame(each) for each in data.frames]),
}

_REPEATED: Mapping[int, Callable[[proto.Data], list[Any]]] = {
    T.CONCEPT: lambda data: [shapes.read_concept(each) for each in data.concepts],
    T.REGION: lambda data: [shapes.read_region(each) for each in data.regions],
    T.FRAME: lambda data: [shapes.read_frame(each) for each in data.frames],
}

# -- containers ----------------------------------------------------------------------------------------


def _write_list(value: Any, kind: Type, data: proto.Data, room: int) -> None:
    if not isinstance(value, list):
        raise Misfit("should be an array")
    inner = _inner(kind)
    for index, item in enumerate(value):
        target = data if inner.type in _REPEATED else data.parts.add().data
        _write_within(index, item, inner, target, room)


def _read_list(data: proto.Data, kind: Type) -> list[Any]:
    inner = _inner(kind)
    if (repeated := _REPEATED.get(inner.type)) is not None:
        return repeated(data)
    return [_read_within(index, part.data, inner) for index, part in enumerate(data.parts)]


def _write_tuple(value: Any, kind: Type, data: proto.Data, room: int) -> None:
    if not isinstance(value, list) or len(value) != len(kind.type_args):
        raise Misfit(f"should be an array of {len(kind.type_args)} items")
    for index, (item, inner) in enumerate(zip(value, kind.type_args, strict=True)):
        _write_within(index, item, inner, data.parts.add(id=str(index)).data, room)


def _read_tuple(data: proto.Data, kind: Type) -> list[Any] | None:
    if not data.parts and kind.type_args:
        return None
    if len(data.parts) != len(kind.type_args):
        raise Misfit(f"has {len(data.parts)} parts, and should have {len(kind.type_args)}")
    pairs = enumerate(zip(data.parts, kind.type_args, strict=True))
    return [_read_within(index, part.data, inner) for index, (part, inner) in pairs]


def _write_named(value: Any, kind: Type, data: proto.Data, room: int) -> None:
    if not isinstance(value, dict):
        raise Misfit("should be an object")
    names = [inner.name for inner in kind.type_args]
    for name in value:
        if name not in names:
            raise Misfit(f"unknown; known are {', '.join(names)[:200] or 'none'}").within(name)
    for inner in kind.type_args:
        if inner.name not in value:
            raise Misfit("field required").within(inner.name)
        _write_within(inner.name, value[inner.name], inner, data.parts.add(id=inner.name).data, room)


def _read_named(data: proto.Data, kind: Type) -> dict[str, Any] | None:
    if not data.parts and kind.type_args:
        return None
    parts = {part.id: part.data for part in reversed(data.parts)}
    missing = [inner.name for inner in kind.type_args if inner.name not in parts]
    if missing:
        raise Misfit("field required").within(missing[0])
    return {inner.name: _read_within(inner.name, parts[inner.name], inner) for inner in kind.type_args}


def _write_within(step: str | int, value: Any, kind: Type, data: proto.Data, room: int) -> None:
    try:
        write(value, kind, data, room - _PART_LEVELS)
    except Misfit as misfit:
        raise misfit.within(step) from None


def _read_within(step: str | int, data: proto.Data, kind: Type) -> Any:
    try:
        return read(data, kind)
    except Misfit as misfit:
        raise misfit.within(step) from None


_CONTAINERS: Mapping[
    int,
    tuple[Callable[[Any, Type, proto.Data, int], None], Callable[[proto.Data, Type], Any]],
] = {
    T.LIST: (_write_list, _read_list),
    T.TUPLE: (_write_tuple, _read_tuple),
    T.NAMED_FIELDS: (_write_named, _read_named),
}


def _inner(kind: Type) -> Type:
    if not kind.type_args:
        raise Misfit("its type is a list of nothing that the signature names")
    inner: Type = kind.type_args[0]
    return inner


def _unknown(kind: Type) -> str:
    return f"its type, number {kind.type}, is not known here; call the raw command of the model"
