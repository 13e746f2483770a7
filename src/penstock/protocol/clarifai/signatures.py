"""Between the signatures of a model's methods, and commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from clarifai_grpc.grpc.api import resources_pb2 as proto
from google.protobuf import json_format

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.codecs import Type, is_known
from penstock.protocol.clarifai.names import OPENAI_METHODS, command_name
from penstock.protocol.clarifai.schemas import (
    Reader,
    Schema,
    add_limits,
    default_of,
    read_limits,
    schema_of,
    write_default,
)
from penstock.protocol.clarifai.values import RETURN
from penstock.protocol.dispatch import CommandDescription
from penstock.protocol.marks import STREAM
from penstock.protocol.runners import Offer

Kind = proto.RunnerMethodType

MAX_TEXT = 4 * 1024 * 1024  # bytes of what a model says of its methods
_STREAMS = frozenset((Kind.UNARY_STREAMING, Kind.STREAMING_STREAMING))
_SERVED = frozenset((Kind.UNARY_UNARY, *_STREAMS))


# -- what a model says of its methods ------------------------------------------------------------------


def read_signatures(text: str) -> list[proto.MethodSignature]:
    """Return what ``_GET_SIGNATURES`` answers with: JSON, signatures by their names.

    Raises:
        CallError: ``invalid_output``.
    """
    try:
        if len(text) > MAX_TEXT:
            raise ValueError(f"{len(text)} characters; at most {MAX_TEXT} are read")
        found = msgspec.json.decode(text, type=dict[str, dict[str, Any]])
        return [
            json_format.ParseDict(signature, proto.MethodSignature(), ignore_unknown_fields=True)
            for signature in found.values()
        ]
    except (msgspec.MsgspecError, json_format.ParseError, ValueError, RecursionError) as error:
        said = str(error)[:300]
        raise CallError(f"the signatures cannot be read: {said}", ErrorCode.INVALID_OUTPUT) from error


def write_signatures(signatures: Iterable[proto.MethodSignature]) -> str:
    """Return signatures as ``_GET_SIGNATURES`` answers with them."""
    found = {signature.name: json_format.MessageToDict(signature) for signature in signatures}
    return msgspec.json.encode(found).decode()


# -- methods as commands -------------------------------------------------------------------------------


def offers(
    model_id: str, signatures: Iterable[proto.MethodSignature], concurrency: int = 1
) -> list[tuple[Offer, proto.MethodSignature]]:
    """Return a model's methods as commands, each with its signature.

    Methods of types that are not known here are left out; they can be called by the raw commands.

    Args:
        concurrency: Calls of each at once.
    """
    found = []
    for signature in signatures:
        if is_served(signature):
            try:
                found.append((_offer(model_id, signature, concurrency), signature))
            except ValueError:  # nested deeper than can be shown
                continue
    return found


def is_served(signature: proto.MethodSignature) -> bool:
    """Whether a method can be called with JSON."""
    fields = [*signature.input_fields, *signature.output_fields]
    streams = sum(field.iterator for field in signature.input_fields)
    return (
        signature.method_type in _SERVED
        and len(signature.output_fields) == 1
        and all(map(is_known, fields))
        and streams == (signature.method_type == Kind.STREAMING_STREAMING)
    )


def _offer(model_id: str, signature: proto.MethodSignature, concurrency: int) -> Offer:
    return Offer(
        name=command_name(model_id, signature.name),
        description=signature.description[:4096],
        streaming=signature.method_type in _STREAMS,
        input_schema=_input_schema(signature),
        item_schema=schema_of(signature.output_fields[0]),
        takes_stream=signature.method_type == Kind.STREAMING_STREAMING,
        concurrency=concurrency,
        openai="transport" if signature.name in OPENAI_METHODS else None,
        model=model_id if signature.name in OPENAI_METHODS else None,
    )


def _input_schema(signature: proto.MethodSignature) -> Schema:
    required = [field.name for field in signature.input_fields if field.required and not field.iterator]
    schema: Schema = {
        "type": "object",
        "title": "Input",
        "properties": {field.name: _argument(field) for field in signature.input_fields},
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def _argument(field: Type) -> Schema:
    schema = schema_of(field)
    if field.iterator:
        schema = {"type": "array", "items": schema, STREAM: True}
    add_limits(schema, field)
    if field.required or field.iterator:
        return schema
    default = default_of(field)
    if default is None:
        return {"anyOf": [schema, {"type": "null"}], "default": None}
    return schema if default is msgspec.UNSET else schema | {"default": default}


# -- commands as methods -------------------------------------------------------------------------------


def signature_of(name: str, command: Offer | CommandDescription) -> proto.MethodSignature:
    """Return a command as a method that clients of Clarifai's can call.

    Each input is an argument of the type that fits it best, and JSON where none does.

    Args:
        name: What the method is called.
    """
    found = proto.MethodSignature(name=name, description=command.description)
    schema = command.input_schema
    reader, stream = Reader(schema), _stream_of(command)
    required = schema.get("required")
    for each, argument in _properties(command).items():
        field = found.input_fields.add(name=each, iterator=each == stream)
        _fill_argument(field, argument, reader)
        field.required = field.iterator or (
            field.required and isinstance(required, list) and each in required
        )
    if command.streaming:
        found.method_type = Kind.STREAMING_STREAMING if stream else Kind.UNARY_STREAMING
    else:
        found.method_type = Kind.UNARY_UNARY
    _fill_answer(found.output_fields.add(name=RETURN, iterator=command.streaming), command.item_schema)
    return found


def _fill_answer(field: Type, schema: Mapping[str, Any]) -> None:
    reader = Reader(schema)
    item, _ = reader.resolved(schema)  # null is nothing that is given, whatever the type
    reader.fill(field, item)


def _fill_argument(field: Type, schema: object, reader: Reader) -> None:
    found, is_nullable = reader.resolved(schema)
    if field.iterator:
        reader.fill(field, found.get("items", {}))
        return
    reader.fill(field, found)
    read_limits(found, field)
    field.required = not is_nullable and "default" not in found
    if not field.required:
        write_default(field, found.get("default"))


def _stream_of(command: Offer | CommandDescription) -> str:
    """Return the input of a command that is a stream, if what it gives is one too: only then can a method of
    Clarifai's take one, and else it takes the whole as a list."""
    if not command.streaming:
        return ""
    properties = _properties(command)
    marked = (name for name, schema in properties.items() if isinstance(schema, dict) and STREAM in schema)
    return next(marked, "")


def _properties(command: Offer | CommandDescription) -> Mapping[str, Any]:
    found = command.input_schema.get("properties")
    return found if isinstance(found, dict) else {}
