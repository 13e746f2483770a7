"""An app's commands as the methods of a model: which one an item means, and how it may be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from clarifai_grpc.grpc.api import resources_pb2, service_pb2

from penstock.errors import CallError, ErrorCode
from penstock.protocol.clarifai import signatures
from penstock.protocol.clarifai.names import SIGNATURES
from penstock.protocol.clarifai.statuses import success
from penstock.protocol.clarifai.values import method_of
from penstock.protocol.runners import Offer
from penstock.runner.clarifai.admission import COMMAND as ADMISSION
from penstock.runtime.app import App
from penstock.runtime.nearest import nearest
from penstock.runtime.offers import make_offer
from penstock.runtime.state import CLEANUP, INITIALIZE

_USUAL: Mapping[int, str] = {
    resources_pb2.UNARY_UNARY: "predict",
    resources_pb2.UNARY_STREAMING: "generate",
    resources_pb2.STREAMING_STREAMING: "stream",
}
_RPCS: Mapping[int, str] = {
    resources_pb2.UNARY_UNARY: "PostModelOutputs",
    resources_pb2.UNARY_STREAMING: "GenerateModelOutputs",
    resources_pb2.STREAMING_STREAMING: "StreamModelOutputs",
}
"""What an item's request is, by the way it is to be called."""


class Method(NamedTuple):
    """A command, and what callers are told of it."""

    offer: Offer
    signature: resources_pb2.MethodSignature


class Methods:
    """The methods that an app has; what makes and drops its state is none, nor what says whether more work is
    wanted.

    Args:
        methods: By name.
        default: Is meant where nothing is named, and the usual name is not there.
    """

    def __init__(self, methods: Mapping[str, Method], default: str) -> None:
        self._methods = methods
        self._default = default

    @classmethod
    async def of(cls, app: App) -> Methods:
        """Return those of an app that is started."""
        described, bound = await app.describe(), app.bound
        offers = {
            name: make_offer(bound[name], shown)
            for name, shown in described.commands.items()
            if name not in (INITIALIZE, CLEANUP, ADMISSION)
        }
        methods = {
            name: Method(offer, signatures.signature_of(name, offer)) for name, offer in offers.items()
        }
        return cls(methods, described.default_command)

    @property
    def most_at_once(self) -> int:
        """How many calls of the method run at once that runs the most."""
        return max((method.offer.concurrency for method in self._methods.values()), default=1)

    def find(self, request: service_pb2.PostModelOutputsRequest, method_type: int) -> Method:
        """Return what an item means.

        Raises:
            CallError: ``invalid_argument``; there is no such method, or it is not called so.
        """
        name = method_of(request, self._unnamed(method_type))
        method = self._methods.get(name)
        if method is None:
            text = f"no method {name!r}; {nearest(name, self._methods)}"
            raise CallError(text, ErrorCode.INVALID_ARGUMENT)
        if method_type == resources_pb2.UNARY_UNARY and method.offer.streaming:
            raise _not_so(name, "streams", method)
        both_ways = resources_pb2.STREAMING_STREAMING
        if method_type == both_ways and method.signature.method_type != both_ways:
            raise _not_so(name, "does not stream both ways", method)
        return method

    def describe(self) -> service_pb2.MultiOutputResponse:
        """Return what answers who asks for the signatures."""
        text = signatures.write_signatures([method.signature for method in self._methods.values()])
        response = service_pb2.MultiOutputResponse(status=success())
        output = response.outputs.add(status=success())
        output.data.text.raw = text
        return response

    def _unnamed(self, method_type: int) -> str:
        usual = _USUAL[method_type]
        return usual if usual in self._methods else self._default


def asks_for_signatures(request: service_pb2.PostModelOutputsRequest) -> bool:
    """Whether a request asks what methods there are."""
    return method_of(request, "") == SIGNATURES


def _not_so(name: str, what: str, method: Method) -> CallError:
    rpc = _RPCS[method.signature.method_type]
    return CallError(f"{name} {what}; call it with {rpc}", ErrorCode.INVALID_ARGUMENT)
