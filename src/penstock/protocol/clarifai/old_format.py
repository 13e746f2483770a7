"""Data as it was before methods had names: without parts, each argument in the field of its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from clarifai_grpc.grpc.api import resources_pb2 as proto

from penstock.errors import ErrorCode
from penstock.protocol.clarifai.codecs import T, Type, write
from penstock.protocol.clarifai.misfits import Misfit

_FIELDS: Mapping[int, str] = {
    T.STR: "string_value",
    T.BYTES: "bytes_value",
    T.INT: "int_value",
    T.FLOAT: "float_value",
    T.BOOL: "bool_value",
    T.NDARRAY: "ndarray",
    T.JSON_DATA: "struct_value",
    T.TEXT: "text",
    T.IMAGE: "image",
    T.AUDIO: "audio",
    T.VIDEO: "video",
    T.CONCEPT: "concepts",
    T.REGION: "regions",
    T.FRAME: "frames",
}


def is_old(data: proto.Data) -> bool:
    """Whether data is of this format."""
    return not data.parts and any(field.name != "metadata" for field, _ in data.ListFields())


def renewed(data: proto.Data, fields: Sequence[Type]) -> proto.Data:
    """Return it in parts: each argument takes what there is of its type, if no other has taken it.

    Raises:
        CallError: ``invalid_argument``; text for a JSON argument is no JSON.
    """
    left, found = {field.name: value for field, value in data.ListFields()}, proto.Data()
    for field in fields:
        name = _field_of(field, left)
        if name in left:
            try:
                _move(left.pop(name), name, field, found.parts.add(id=field.name).data)
            except Misfit as misfit:
                raise misfit.within(field.name).error("input", ErrorCode.INVALID_ARGUMENT) from None
    return found


def _field_of(field: Type, left: Mapping[str, Any]) -> str:
    kind = field.type_args[0].type if field.type == T.LIST and field.type_args else field.type
    if kind == T.STR and "text" in left:
        return "text"
    if kind == T.JSON_DATA and "struct_value" not in left:
        return "string_value"
    return _FIELDS.get(kind, "")


def _move(value: Any, name: str, field: Type, target: proto.Data) -> None:
    if name == "text" and field.type == T.STR:
        target.string_value = value.raw
    elif name == "string_value" and field.type == T.JSON_DATA:
        try:
            write(msgspec.json.decode(value), field, target)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Misfit(f"not JSON: {error}") from error
    else:
        target.MergeFrom(proto.Data(**{name: value}))
