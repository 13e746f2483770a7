"""Raw commands: a model's RPCs as commands, whose JSON only wraps the messages.

A request is ``{"request": "<base64>"}``, an answer or an item ``{"response": "<base64>"}``, of a serialized
``PostModelOutputsRequest`` and ``MultiOutputResponse``.  Nothing of a message is lost on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from clarifai_grpc.grpc.api import service_pb2
from google.protobuf.message import DecodeError

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai.names import GENERATE, POST, STREAM, command_name
from penstock.protocol.runners import Offer

M = TypeVar("M", service_pb2.PostModelOutputsRequest, service_pb2.MultiOutputResponse)


class _Request(msgspec.Struct):
    request: bytes


class _Response(msgspec.Struct):
    response: bytes


def write_request(request: service_pb2.PostModelOutputsRequest) -> bytes:
    """Return a request as the input of a raw command, or one of its further items."""
    return _encode(_Request(request.SerializeToString()))


def read_request(text: bytes) -> service_pb2.PostModelOutputsRequest:
    """Return the request that the input of a raw command is.

    Raises:
        CallError: ``invalid_argument``.
    """
    try:
        return _parsed(_decode_request(text).request, service_pb2.PostModelOutputsRequest)
    except _FAULTS as error:
        raise CallError(
            f'input: not a raw request; send {{"request": base64 of a PostModelOutputsRequest}}: {error}',
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["input", "request"], "reason": "protobuf"}],
        ) from error


def write_response(response: service_pb2.MultiOutputResponse) -> bytes:
    """Return a response as the answer or an item of a raw command."""
    return _encode(_Response(response.SerializeToString()))


def read_response(text: bytes) -> service_pb2.MultiOutputResponse:
    """Return the response that an answer or an item of a raw command is.

    Raises:
        CallError: ``invalid_output``.
    """
    try:
        return _parsed(_decode_response(text).response, service_pb2.MultiOutputResponse)
    except _FAULTS as error:
        raise CallError(f"the item is not a raw response: {error}", ErrorCode.INVALID_OUTPUT) from error


def offers(model_id: str, concurrency: int) -> list[Offer]:
    """Return the raw commands of a model.

    Args:
        concurrency: Calls of each at once.
    """
    return [
        _offer(model_id, POST, concurrency, "Process inputs, and answer once."),
        _offer(model_id, GENERATE, concurrency, "Process an input, and answer as a stream.", streaming=True),
        _offer(
            model_id,
            STREAM,
            concurrency,
            "Process a stream of inputs, and answer as a stream.",
            streaming=True,
            takes_stream=True,
        ),
    ]


def _offer(
    model_id: str,
    rpc: str,
    concurrency: int,
    description: str,
    *,
    streaming: bool = False,
    takes_stream: bool = False,
) -> Offer:
    return Offer(
        name=command_name(model_id, rpc),
        description=f"{description}  The messages are Clarifai's, as protobuf.",
        input_schema=_schema("request", "PostModelOutputsRequest"),
        item_schema=_schema("response", "MultiOutputResponse"),
        concurrency=concurrency,
        streaming=streaming,
        takes_stream=takes_stream,
    )


def _schema(name: str, message: str) -> dict[str, Any]:
    # Without a `format`, which would keep a gateway from seeing at once that an input fits.
    described = {"type": "string", "description": f"A serialized {message}, in base64."}
    return {
        "type": "object",
        "properties": {name: described},
        "required": [name],
        "additionalProperties": False,
    }


def _parsed(data: bytes, kind: Callable[[], M]) -> M:
    message: M = kind()
    message.ParseFromString(data)
    return message


_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(_Request).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_FAULTS = (msgspec.MsgspecError, DecodeError, ValueError, RecursionError)
