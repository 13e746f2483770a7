"""How a command's JSON becomes Clarifai's messages, and what comes back becomes JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from clarifai_grpc.grpc.api import resources_pb2, service_pb2

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai import raw
from penstock.protocol.clarifai.names import GENERATE, METHOD_KEY, POST, RAW, SIGNATURES, STREAM, command_name
from penstock.protocol.clarifai.statuses import error_of
from penstock.protocol.runners import MAX_CONCURRENCY, Offer

Request: TypeAlias = service_pb2.PostModelOutputsRequest | service_pb2.AutoAnnotationRequest
Response = service_pb2.MultiOutputResponse
Kind = resources_pb2.RunnerMethodType

UNARY = Kind.UNARY_UNARY
BIDI = Kind.STREAMING_STREAMING
KINDS: Mapping[str, int] = {POST: UNARY, GENERATE: Kind.UNARY_STREAMING, STREAM: BIDI}


class Form(Protocol):
    """How a command speaks."""

    @property
    def kind(self) -> int:
        """The ``RunnerMethodType``; never one of those that hang a runner."""
        ...

    def open(self, text: bytes) -> list[Request]:
        """Return what a call begins with; nothing where that is for the first item of input to complete.

        Args:
            text: The call's input.

        Raises:
            CallError: ``invalid_argument``.
        """
        ...

    def further(self, text: bytes, opening: bytes | None) -> Request:
        """Return an item of input.

        Args:
            opening: The call's input, with the first item of a call that began with none.

        Raises:
            CallError: ``invalid_argument``.
        """
        ...

    def read(self, response: Response) -> bytes:
        """Return an output as JSON.

        Raises:
            CallError: It says that the call has failed, or is none.
        """
        ...


class RawForm:
    """A model's RPC as it is.

    Args:
        kind: Of the RPC.
    """

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def open(self, text: bytes) -> list[Request]:
        """See ``Form.open``."""
        return [raw.read_request(text)]

    def further(self, text: bytes, opening: bytes | None) -> Request:
        """See ``Form.further``."""
        return raw.read_request(text)

    def read(self, response: Response) -> bytes:
        """See ``Form.read``: what a model says is what its caller gets, failures too."""
        return raw.write_response(response)


def raw_commands(model_id: str) -> tuple[list[Offer], dict[str, Form]]:
    """Return the commands that every model has, and how each speaks."""
    forms: dict[str, Form] = {command_name(model_id, rpc): RawForm(KINDS[rpc]) for rpc in RAW}
    return raw.offers(model_id, MAX_CONCURRENCY), forms


class SignaturesForm:
    """The question what the methods of a model are; its answer is the JSON that the model gives."""

    kind: int = UNARY

    def open(self, text: bytes) -> list[Request]:
        """See ``Form.open``; what is asked is always the same."""
        data = resources_pb2.Data()
        data.metadata.update({METHOD_KEY: SIGNATURES})
        data.parts.add()
        return [service_pb2.PostModelOutputsRequest(inputs=[resources_pb2.Input(data=data)])]

    def further(self, text: bytes, opening: bytes | None) -> Request:
        """See ``Form.further``; there is none."""
        raise CallError("there is no more to ask", ErrorCode.INVALID_ARGUMENT)

    def read(self, response: Response) -> bytes:
        """See ``Form.read``."""
        if (error := error_of(response.status)) is not None:
            raise error
        if not response.outputs:
            raise CallError("the answer has no output", ErrorCode.INVALID_OUTPUT)
        return str(response.outputs[0].data.text.raw).encode()
