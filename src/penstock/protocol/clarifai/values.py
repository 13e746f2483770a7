"""A call's inputs, items and answers: as JSON, and as Clarifai's messages, by the signature of its method.

Each argument is a part of the input's data, by name, and what a method returns is the part ``return``.  As in
the SDK, the first argument may also stand in the data itself, and data without parts is of the old format:
each argument is then the field of its type, and is answered likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from clarifai_grpc.grpc.api import resources_pb2 as proto
from clarifai_grpc.grpc.api import service_pb2

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.codecs import ROOM, T, Type, read, write
from penstock.protocol.clarifai.misfits import Misfit
from penstock.protocol.clarifai.names import METHOD_KEY
from penstock.protocol.clarifai.old_format import is_old, renewed

RETURN = "return"
NULL = "null"
"""What ``ModelTypeField.default`` is for None: the argument is not sent then."""

_CONTAINERS = frozenset((T.LIST, T.TUPLE, T.NAMED_FIELDS))
_encode = msgspec.json.Encoder().encode
_FAULTS = (msgspec.MsgspecError, UnicodeError, RecursionError)


# -- one value -----------------------------------------------------------------------------------------


def to_data(value: Any, kind: Type, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> proto.Data:
    """Return a JSON value as ``Data``.

    Args:
        kind: Its type.
        code: What a value of another type is refused with.

    Raises:
        CallError: With this code.
    """
    data = proto.Data()
    try:
        write(value, kind, data)
    except Misfit as misfit:
        raise misfit.error("value", code) from None
    return data


def from_data(data: proto.Data, kind: Type, code: ErrorCode = ErrorCode.INVALID_OUTPUT) -> Any:
    """Return ``Data`` as a JSON value; None where it is empty and its type has no zero.

    Args:
        kind: Its type.
        code: What data of another type is refused with.

    Raises:
        CallError: With this code.
    """
    try:
        return read(data, kind)
    except Misfit as misfit:
        raise misfit.error("value", code) from None


# -- inputs, from a caller's JSON ----------------------------------------------------------------------


def input_from_json(text: bytes, signature: proto.MethodSignature) -> proto.Input:
    """Return the input of a call as the method takes it; the method is named in it.

    Of a method that takes a stream the arguments beside the stream; see ``items_of``.

    Raises:
        CallError: ``invalid_argument``.
    """
    given, found = _object(text), proto.Input()
    found.data.metadata.fields[METHOD_KEY].string_value = signature.name
    fields = {field.name: field for field in signature.input_fields}
    try:
        for name in given:
            if name not in fields:
                known = ", ".join(fields)[:200] or "none"
                raise Misfit(f"unknown input; known are {known}").within(name)
        for field in fields.values():
            if not field.iterator:
                _add_argument(given, field, found.data)
    except Misfit as misfit:
        raise misfit.error("input", ErrorCode.INVALID_ARGUMENT) from None
    return found


def items_of(text: bytes, signature: proto.MethodSignature) -> list[proto.Input]:
    """Return what of the stream comes with the input of a call: see ``item_from_json``.

    Raises:
        CallError: ``invalid_argument``.
    """
    stream = stream_of(signature)
    items = _object(text).get(stream.name, [])
    if not isinstance(items, list):
        misfit = Misfit("should be an array: what is known of the stream").within(stream.name)
        raise misfit.error("input", ErrorCode.INVALID_ARGUMENT)
    return [_item(item, signature, stream) for item in items]


def item_from_json(text: bytes, signature: proto.MethodSignature) -> proto.Input:
    """Return an item of a stream as a further input; the first goes together with the arguments (``joined``).

    Raises:
        CallError: ``invalid_argument``.
    """
    return _item(_decoded(text, "data"), signature, stream_of(signature))


def joined(arguments: proto.Input, first: proto.Input) -> proto.Input:
    """Return the input that a stream begins with: its arguments, and its first item."""
    found = proto.Input()
    found.CopyFrom(arguments)
    found.data.parts.extend(first.data.parts)
    return found


def stream_of(signature: proto.MethodSignature) -> Type:
    """Return the argument that is a stream.

    Raises:
        CallError: ``invalid_argument``; there is none.
    """
    stream: Type | None = next((field for field in signature.input_fields if field.iterator), None)
    if stream is None:
        raise CallError(f"{signature.name} takes no stream", ErrorCode.INVALID_ARGUMENT)
    return stream


# -- inputs, from Clarifai's messages ------------------------------------------------------------------


def method_of(request: service_pb2.PostModelOutputsRequest, default: str) -> str:
    """Return the method that a request is for.

    Args:
        default: The one where it names none.
    """
    if request.inputs:
        fields = request.inputs[0].data.metadata.fields
        if METHOD_KEY in fields and fields[METHOD_KEY].string_value:
            return str(fields[METHOD_KEY].string_value)
    return default


def json_from_input(given: proto.Input, signature: proto.MethodSignature) -> bytes:
    """Return an input as the JSON object that a command takes; of a stream, its first item is in it.

    What a method has a default for may be missing.  An argument that it does not have is there as null, so
    that it is refused as any unknown one is.

    Raises:
        CallError: ``invalid_argument``.
    """
    return _encode(_arguments(given.data, signature.input_fields))


def item_from_request(
    request: service_pb2.PostModelOutputsRequest, signature: proto.MethodSignature
) -> bytes:
    """Return a further item of a stream as JSON.

    Raises:
        CallError: ``invalid_argument``.
    """
    stream = stream_of(signature)
    if len(request.inputs) != 1:
        text = f"{len(request.inputs)} inputs; an item of a stream is one"
        raise CallError(text, ErrorCode.INVALID_ARGUMENT)
    items = _arguments(request.inputs[0].data, (stream,)).get(stream.name)
    if not items:
        misfit = Misfit("field required").within(stream.name)
        raise misfit.error("data", ErrorCode.INVALID_ARGUMENT)
    return _encode(items[0])


# -- answers and items ---------------------------------------------------------------------------------


def to_output(text: bytes, signature: proto.MethodSignature, *, old: bool = False) -> proto.Data:
    """Return a command's answer or item, JSON, as what a method returns; null is nothing.

    Args:
        old: In the old format, as what was asked with it is answered.

    Raises:
        CallError: ``invalid_output``; it is not what the signature says.
    """
    data = proto.Data()
    value = _decoded(text, "item", ErrorCode.INVALID_OUTPUT)
    if value is None:
        return data
    target = data if old else data.parts.add(id=RETURN).data
    try:
        write(value, signature.output_fields[0], target, ROOM)
    except Misfit as misfit:
        raise misfit.error("item", ErrorCode.INVALID_OUTPUT) from None
    if old and data.string_value:
        data.text.raw = data.string_value
    return data


def from_output(data: proto.Data, signature: proto.MethodSignature) -> bytes:
    """Return what a method returned as JSON.

    Raises:
        CallError: ``invalid_output``; it is not what the signature says.
    """
    kind = signature.output_fields[0]
    part = next((part.data for part in data.parts if part.id == RETURN), None)
    try:
        return _encode(read(data if part is None else part, kind))
    except Misfit as misfit:
        raise misfit.error("item", ErrorCode.INVALID_OUTPUT) from None


# -- inside --------------------------------------------------------------------------------------------


def _object(text: bytes) -> dict[str, Any]:
    value = _decoded(text, "input")
    if not isinstance(value, dict):
        raise Misfit("should be an object").error("input", ErrorCode.INVALID_ARGUMENT)
    return value


def _decoded(text: bytes, root: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> Any:
    try:
        return msgspec.json.decode(text)
    except _FAULTS as error:
        raise CallError(f"{root}: not JSON: {error}", code) from error


def _add_argument(given: Mapping[str, Any], field: Type, data: proto.Data) -> None:
    if field.name not in given:
        if field.required:
            raise Misfit("field required").within(field.name)
        return
    value = given[field.name]
    if value is None and not field.required and field.default == NULL:
        return
    _add_part(value, field, data)


def _add_part(value: Any, field: Type, data: proto.Data) -> None:
    try:
        write(value, field, data.parts.add(id=field.name).data, ROOM)
    except Misfit as misfit:
        raise misfit.within(field.name) from None


def _item(value: Any, signature: proto.MethodSignature, stream: Type) -> proto.Input:
    found = proto.Input()
    found.data.metadata.fields[METHOD_KEY].string_value = signature.name
    try:
        _add_part(value, stream, found.data)
    except Misfit as misfit:
        raise misfit.error("data", ErrorCode.INVALID_ARGUMENT) from None
    return found


def _arguments(data: proto.Data, fields: Sequence[Type]) -> dict[str, Any]:
    """Return what is given as arguments, by name."""
    if is_old(data):
        data = renewed(data, fields)
    parts = {part.id: part.data for part in reversed(data.parts) if part.id}
    names = {field.name for field in fields}
    inlined = names.isdisjoint(parts)
    found: dict[str, Any] = {} if inlined else dict.fromkeys(parts.keys() - names)
    for index, field in enumerate(fields):
        try:
            value = read(parts[field.name], field) if field.name in parts else None
            if field.name not in parts and index == 0 and (inlined or field.type not in _CONTAINERS):
                value = read(data, field)
        except Misfit as misfit:
            error = misfit.within(field.name).error("input", ErrorCode.INVALID_ARGUMENT)
            raise error from None
        if field.name in parts or value:
            found[field.name] = [value] if field.iterator else value
        elif field.default == NULL and not field.required and not field.iterator:
            found[field.name] = None
    return found
