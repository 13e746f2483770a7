"""Between JSON and ``google.protobuf.Struct``, as the SDK has it.

A Struct is an object, so the SDK wraps a list as ``{"_list": [...]}``; it cannot send anything else.  Here
other values are wrapped too, as ``{"_value": ...}``.  Numbers are doubles: whole ones are read as integers.
"""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import struct_pb2

from penstock.protocol.clarifai.misfits import Misfit

LIST = "_list"
VALUE = "_value"
_EXACT = 2**53  # up to here a double is every integer
_OBJECT_LEVELS = 3  # of messages: an entry of the map, its Value, the Struct in it
_LIST_LEVELS = 2  # ListValue, Value


def write_struct(value: Any, struct: struct_pb2.Struct, room: int) -> None:
    """Fill ``struct`` with a JSON value.

    Args:
        room: How many levels of messages there may be, as readers take only so many.

    Raises:
        Misfit: It is nested too deep, or has an integer that a double cannot hold.
    """
    wrapped = value
    if isinstance(value, list):
        wrapped = {LIST: value}
    elif not isinstance(value, dict):
        wrapped = {VALUE: value}
    _write_object(wrapped, struct, room)


def read_struct(struct: struct_pb2.Struct) -> Any:
    """Return the JSON value that ``struct`` is.

    Raises:
        Misfit: It has a number that JSON has not.
    """
    found = _read_object(struct)
    if len(found) == 1:
        name, value = next(iter(found.items()))
        if name == VALUE or (name == LIST and isinstance(value, list)):
            return value
    return found


def _write_object(value: dict[str, Any], struct: struct_pb2.Struct, room: int) -> None:
    _check_room(room)
    fields = struct.fields
    for name, item in value.items():
        try:
            _write(item, fields[name], room - _OBJECT_LEVELS)
        except Misfit as misfit:
            raise misfit.within(name) from None


def _write(value: Any, target: struct_pb2.Value, room: int) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, (int, float)):
        target.number_value = _double(value)
    elif value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        _write_object(value, target.struct_value, room)
    else:
        target.list_value.SetInParent()
        _write_list(value, target.list_value, room)


def _write_list(value: list[Any], target: struct_pb2.ListValue, room: int) -> None:
    _check_room(room)
    for index, item in enumerate(value):
        try:
            _write(item, target.values.add(), room - _LIST_LEVELS)
        except Misfit as misfit:
            raise misfit.within(index) from None


def _check_room(room: int) -> None:
    if room < _OBJECT_LEVELS:
        raise Misfit("nested deeper than Clarifai's messages can be")


def _double(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise Misfit("too large for the numbers of Clarifai's JSON") from None
    if number != value:
        raise Misfit(
            f"{value} is more exact than the numbers of Clarifai's JSON, which are doubles; send it as text"
        )
    return number


def _read_object(struct: struct_pb2.Struct) -> dict[str, Any]:
    return {name: _read(value) for name, value in struct.fields.items()}


def _read(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _read_object(value.struct_value)
    if kind == "list_value":
        return [_read(item) for item in value.list_value.values]
    return None


def _number(number: float) -> int | float:
    if not math.isfinite(number):
        raise Misfit(f"{number}, and JSON has no such number")
    whole = int(number)
    return whole if whole == number and abs(whole) <= _EXACT else number
