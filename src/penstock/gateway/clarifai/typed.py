"""A model's methods as commands: JSON in, JSON out, by their signatures."""

from __future__ import annotations

from clarifai_grpc.grpc.api import resources_pb2, service_pb2

from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.binding import ServedModel
from penstock.gateway.clarifai.forms import BIDI, Form, Request, Response
from penstock.protocol.clarifai.signatures import offers, read_signatures
from penstock.protocol.clarifai.statuses import error_of
from penstock.protocol.clarifai.values import from_output, input_from_json, item_from_json, items_of, joined
from penstock.protocol.runners import MAX_CONCURRENCY, Offer


class TypedForm:
    """One method.

    Args:
        model: Whose it is.
        signature: What it takes and gives.
    """

    def __init__(self, model: ServedModel, signature: resources_pb2.MethodSignature) -> None:
        self._model = model
        self._signature = signature
        self.kind: int = signature.method_type

    def open(self, text: bytes) -> list[Request]:
        """See ``Form.open``."""
        given = input_from_json(text, self._signature)
        if self.kind != BIDI:
            return [self._request(given)]
        items = items_of(text, self._signature)
        return [
            self._request(joined(given, item) if number == 0 else item) for number, item in enumerate(items)
        ]

    def further(self, text: bytes, opening: bytes | None) -> Request:
        """See ``Form.further``."""
        item = item_from_json(text, self._signature)
        if opening is not None:
            item = joined(input_from_json(opening, self._signature), item)
        return self._request(item)

    def read(self, response: Response) -> bytes:
        """See ``Form.read``."""
        error = error_of(response.status)
        if error is None and not response.outputs:
            error = CallError("the runner's answer has no output", ErrorCode.INVALID_OUTPUT)
        if error is None and response.outputs[0].status.code:
            error = error_of(response.outputs[0].status)
        if error is not None:
            raise error
        return from_output(response.outputs[0].data, self._signature)

    def _request(self, given: resources_pb2.Input) -> Request:
        model = self._model
        return service_pb2.PostModelOutputsRequest(
            user_app_id=resources_pb2.UserAppIDSet(user_id=model.user_id, app_id=model.app_id),
            model_id=model.model_id,
            version_id=model.version_id,
            inputs=[given],
        )


def typed_commands(model: ServedModel, signatures: bytes) -> tuple[list[Offer], dict[str, Form]]:
    """Return the methods of a model as commands, and how each speaks.

    Args:
        signatures: As the model says them.

    Raises:
        CallError: ``invalid_output``; they cannot be read.
    """
    found = offers(model.model_id, read_signatures(signatures.decode("utf-8", "replace")), MAX_CONCURRENCY)
    forms: dict[str, Form] = {offer.name: TypedForm(model, signature) for offer, signature in found}
    return [offer for offer, _ in found], forms
