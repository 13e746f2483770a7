"""Clients whose RPCs come without a socket, and runners that offer models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import anyio
from clarifai_grpc.grpc.api import resources_pb2 as proto
from clarifai_grpc.grpc.api import service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

from gateway.fakes import WAIT_S, FakeRunner, World
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.clients import Clients, serve_clients
from penstock.protocol.clarifai import raw
from penstock.protocol.clarifai.statuses import name_of, success
from penstock.protocol.dispatch import Caller
from penstock.protocol.runners import Offer

Request = service_pb2.PostModelOutputsRequest
Response = service_pb2.MultiOutputResponse

TEXT = {"type": "string"}
ECHO = Offer(
    name="echo",
    input_schema={"type": "object", "properties": {"text": TEXT}, "required": ["text"]},
    item_schema=TEXT,
    concurrency=4,
    queue=8,
)
SAY = Offer(
    name="say", streaming=True, input_schema=ECHO.input_schema, item_schema=TEXT, concurrency=4, queue=8
)
CHAT = Offer(
    name="chat",
    streaming=True,
    takes_stream=True,
    input_schema={
        "type": "object",
        "properties": {"lines": {"type": "array", "items": TEXT, "x-stream": True}, "mark": TEXT},
    },
    item_schema=TEXT,
    concurrency=4,
    queue=8,
)
RAW_LABELS = {
    "clarifai_user": "u1",
    "clarifai_compute_cluster": "cc1",
    "clarifai_nodepool": "np1",
    "clarifai_runner": "r1",
    "clarifai_model": "toy",
}


class Visitor:
    """A runner's key."""

    commands: frozenset[str] | None = None

    def __init__(self, key: str) -> None:
        self.key = key

    def still_welcome(self) -> bool:
        return True


class OpenGuard:
    """Lets in all but ``stranger``; keys are their own ids, and ``runner-…`` are of runners."""

    def enter(self, token: str | None, asked: Caller) -> Caller:
        key = token or ""
        if key == "stranger":
            raise CallError("no such key is known here", ErrorCode.UNAUTHENTICATED)
        if key.startswith("runner-"):
            raise CallError("this key is not of the scope caller", ErrorCode.PERMISSION_DENIED)
        return Caller(key=key, admin=key == "admin", correlation_id=asked.correlation_id)

    def enter_host(self, token: str | None) -> Visitor:
        return Visitor(token or "")

    def still(self, caller: Caller) -> bool:
        return True


class FakeContext:
    """The context of one RPC."""

    def __init__(self, key: str = "", **metadata: str) -> None:
        self.metadata = [("authorization", f"Key {key}")] if key else []
        self.metadata += list(metadata.items())
        self.written: list[Response] = []
        self.left: float | None = None
        self.stuck = self.broken = False

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self.metadata

    def time_remaining(self) -> float | None:
        return self.left

    async def write(self, message: Response) -> None:
        if self.broken:
            raise RuntimeError("nobody is there")
        self.written.append(message)
        if self.stuck:
            await anyio.sleep_forever()


class Site:
    """A gateway for clients.

    Args:
        world: Its hub.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients: Clients = serve_clients(world.hub, OpenGuard(), world.clock)

    def rpc(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return what serves an RPC."""
        return next(getattr(one, name) for one in self.clients.services if hasattr(one, name))

    async def ask(self, name: str, request: Any, key: str = "") -> Any:
        """Return the answer of an RPC."""
        with anyio.fail_after(WAIT_S):
            return await self.rpc(name)(request, FakeContext(key))

    def native(self, name: str = "one", *offers: Offer, **labels: str) -> FakeRunner:
        """Return a runner of penstock's own."""
        return self.world.runner(name, *(offers or (ECHO, SAY, CHAT)), labels=labels)

    def raw(self, name: str = "r1-x", **labels: str) -> FakeRunner:
        """Return a runner of Clarifai's."""
        labels = {**RAW_LABELS, **labels}
        return self.world.runner(name, *raw.offers(labels["clarifai_model"], 4), labels=labels)


def request(
    model: str = "gateway", method: str = "", *inputs: Mapping[str, Any], **more: Any
) -> service_pb2.PostModelOutputsRequest:
    """Return a request with texts as arguments."""
    found = Request(user_app_id=proto.UserAppIDSet(user_id="u1", app_id="a1"), model_id=model, **more)
    for given in inputs:
        data = found.inputs.add().data
        if method:
            data.metadata.update({"_method_name": method})
        for name, value in given.items():
            data.parts.add(id=name).data.string_value = value
    return found


async def given(*requests: Request) -> AsyncIterator[Request]:
    """Yield requests, as a stream of input."""
    for each in requests:
        yield each


def output(text: str, **more: Any) -> Response:
    """Return what a model answers."""
    data = proto.Data(parts=[proto.Part(id="return", data=proto.Data(string_value=text))])
    return Response(status=success(), outputs=[proto.Output(status=success(), data=data, **more)])


def raw_item(response: Response) -> Any:
    """Return a response as a raw item."""
    return json.loads(raw.write_response(response))


def texts(responses: Iterable[Response]) -> list[str]:
    """Return the texts of outputs, and the statuses of failures."""
    found = []
    for response in responses:
        found += [each.data.parts[0].data.string_value for each in response.outputs]
        if response.status.code != codes.SUCCESS:
            found.append(name_of(response.status.code))
    return found
