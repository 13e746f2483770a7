"""How calls are asked for and answered: with a model's own messages, or with JSON by the signatures of
commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.outcomes import Outcome
from penstock.gateway.clarifai.targets import Target, Targets
from penstock.protocol.clarifai import raw
from penstock.protocol.clarifai.names import GENERATE, POST, SIGNATURES, STREAM, command_name
from penstock.protocol.clarifai.old_format import is_old
from penstock.protocol.clarifai.signatures import write_signatures
from penstock.protocol.clarifai.statuses import status_of, success
from penstock.protocol.clarifai.values import item_from_request, json_from_input, method_of, to_output
from penstock.protocol.runners import Offer

Request = service_pb2.PostModelOutputsRequest
Response = service_pb2.MultiOutputResponse
Output = resources_pb2.Output

MAX_INPUTS = 128  # of one request; the SDK sends no more
_DEFAULTS: Mapping[str, str] = {POST: "predict", GENERATE: "generate", STREAM: "stream"}
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")
_MOST = 2**32 - 1


class Speech(Protocol):
    """How a request is put to a command."""

    @property
    def command(self) -> str:
        """The command."""
        ...

    def inputs(self, request: Request) -> list[bytes]:
        """Return the input of each call that answers the request together.

        Raises:
            CallError: ``invalid_argument``.
        """
        ...

    def further(self, request: Request) -> bytes:
        """Return a further item of the input.

        Raises:
            CallError: ``invalid_argument``.
        """
        ...

    def response(self, outcome: Outcome, req_id: str) -> Response:
        """Return an item, or an answer.

        Raises:
            CallError: ``invalid_output``.
        """
        ...


class RawSpeech:
    """The messages as they are, for a model of Clarifai's.

    Args:
        command: One of its raw commands.
    """

    def __init__(self, command: str) -> None:
        self.command = command

    def inputs(self, request: Request) -> list[bytes]:
        """See ``Speech.inputs``; the model does with a batch what it does with batches."""
        return [raw.write_request(request)]

    def further(self, request: Request) -> bytes:
        """See ``Speech.further``."""
        return raw.write_request(request)

    def response(self, outcome: Outcome, req_id: str) -> Response:
        """See ``Speech.response``."""
        response = raw.read_response(outcome.data)
        if not response.status.req_id:
            response.status.req_id = req_id
        return response


class CommandSpeech:
    """JSON, by the types of a command.

    Args:
        offer: The command.
        signature: As a method.
    """

    def __init__(self, offer: Offer, signature: resources_pb2.MethodSignature) -> None:
        self.command = offer.name
        self._signature = signature
        self._old = False

    def inputs(self, request: Request) -> list[bytes]:
        """See ``Speech.inputs``; one call for each of a batch."""
        self._old = any(is_old(given.data) for given in request.inputs)
        return [json_from_input(given, self._signature) for given in request.inputs]

    def further(self, request: Request) -> bytes:
        """See ``Speech.further``."""
        return item_from_request(request, self._signature)

    def response(self, outcome: Outcome, req_id: str) -> Response:
        """See ``Speech.response``."""
        data = to_output(bytes(outcome.data), self._signature, old=self._old)
        output = Output(status=success(), data=data)
        _add_tokens(outcome.metrics, output)
        return Response(status=success(req_id), outputs=[output])


def speech_of(target: Target, targets: Targets, rpc: str, request: Request) -> Speech:
    """Return how a request is put to what it is for.

    Raises:
        CallError: ``invalid_argument``.
    """
    if target.model_id:
        return RawSpeech(command_name(target.model_id, rpc))
    _check_count(rpc, request)
    method = method_of(request, _DEFAULTS[rpc])
    offer = target.method(method)
    if offer is None:
        known = ", ".join(sorted(target.methods()))[:200] or "none"
        raise _refused(f"the model has no method {method[:100]!r}; its methods are {known}")
    signature = targets.signature(offer)
    if rpc == POST and offer.streaming:
        raise _refused(f"{method} gives a stream; call {STREAM if offer.takes_stream else GENERATE}")
    if rpc == STREAM and signature.method_type != resources_pb2.STREAMING_STREAMING:
        raise _refused(f"{method} does not take a stream and give one; call {POST} or {GENERATE}")
    return CommandSpeech(offer, signature)


def signatures_asked(target: Target, rpc: str, request: Request) -> bool:
    """Whether a request asks what methods there are, where no model answers that itself."""
    return not target.model_id and rpc == POST and method_of(request, "") == SIGNATURES


def described(target: Target, targets: Targets) -> Response:
    """Return the answer to who asks what methods there are."""
    text = write_signatures(targets.signature(offer) for offer in target.methods().values())
    data = resources_pb2.Data(text=resources_pb2.Text(raw=text))
    return Response(status=success(), outputs=[Output(status=success(), data=data)])


def failed(error: CallError, req_id: str = "") -> Response:
    """Return what a failure is answered with."""
    return Response(status=status_of(error, req_id))


def together(answers: Sequence[Response]) -> Response:
    """Return the answers to the inputs of one request as its answer, an output for each input."""
    if len(answers) == 1:
        return answers[0]
    found, fine = Response(), 0
    for answer in answers:
        if answer.status.code == codes.SUCCESS:
            fine += 1
            found.outputs.extend(answer.outputs)
        else:
            found.outputs.add(status=answer.status)
    if fine == len(answers):
        found.status.CopyFrom(answers[0].status)
    elif fine:
        found.status.CopyFrom(status_pb2.Status(code=codes.MIXED_STATUS, description="Mixed Status"))
    else:
        found.status.CopyFrom(answers[0].status)
    return found


def _check_count(rpc: str, request: Request) -> None:
    count = len(request.inputs)
    most = MAX_INPUTS if rpc == POST else 1
    if not 1 <= count <= most:
        raise _refused(f"{count} inputs; {rpc} takes {'1 to ' if most > 1 else ''}{most}")


def _refused(text: str) -> CallError:
    return CallError(text, ErrorCode.INVALID_ARGUMENT)


def _add_tokens(metrics: Mapping[str, Any], output: Output) -> None:
    """Say what is known of the work of an engine."""
    for name in _TOKENS:
        count = metrics.get(name)
        if isinstance(count, int) and 0 <= count <= _MOST:
            setattr(output, name, count)
