"""The client RPCs over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import grpc
import pytest
from clarifai_grpc.grpc.api import service_pb2
from grpc import aio

from gateway.clarifai.callers import OpenGuard, Site, given, output, raw_item, request, texts
from gateway.clarifai.test_clarifai_calls import answer, cancelled, heard, opened
from gateway.fakes import WAIT_S, World
from penstock.gateway.clarifai.server import ClarifaiServer
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Open

pytestmark = pytest.mark.anyio


class Stub:
    """The RPCs that are called here; the one of the package wants a channel of the package's."""

    def __init__(self, channel: aio.Channel) -> None:
        asked, answered = service_pb2.PostModelOutputsRequest, service_pb2.MultiOutputResponse
        ends = (asked.SerializeToString, answered.FromString)
        self.PostModelOutputs = channel.unary_unary("/clarifai.api.V2/PostModelOutputs", *ends)
        self.GenerateModelOutputs = channel.unary_stream("/clarifai.api.V2/GenerateModelOutputs", *ends)
        self.StreamModelOutputs = channel.stream_stream("/clarifai.api.V2/StreamModelOutputs", *ends)
        ends = (service_pb2.GetModelRequest.SerializeToString, service_pb2.SingleModelResponse.FromString)
        self.GetModel = channel.unary_unary("/clarifai.api.V2/GetModel", *ends)


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


@pytest.fixture
async def channel(site: Site) -> AsyncIterator[aio.Channel]:
    """A channel to a server of this hub."""
    where: list[str] = []
    clients = site.clients
    server = ClarifaiServer(
        site.world.hub,
        OpenGuard(),
        "127.0.0.1",
        LinkSettings(port=0),
        clients.bindings,
        clients.services,
        listening=where.append,
    )
    await server.start()
    try:
        async with aio.insecure_channel(where[0].removeprefix("http://")) as channel:
            yield channel
    finally:
        await server.aclose()


async def test_the_three(site: Site, channel: aio.Channel) -> None:
    runner, stub = site.native(), Stub(channel)
    unary = stub.PostModelOutputs(request("gateway", "echo", {"text": "hi"}))
    (call,) = await opened(runner)
    answer(runner, call, "HI")
    assert texts([await unary]) == ["HI"]
    stream = stub.GenerateModelOutputs(request("gateway", "say", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, "a")
    assert texts([await stream.read()]) == ["a"]
    runner.item(call.request_id, "b")
    runner.end(call.request_id)
    assert texts([await stream.read()]) == ["b"]
    assert await stream.read() is aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    both = stub.StreamModelOutputs()
    await both.write(request("gateway", "chat", {"lines": "a"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, "x")
    assert texts([await both.read()]) == ["x"]
    await both.write(request("gateway", "chat", {"lines": "b"}))
    await both.done_writing()
    await heard(runner, 2)
    runner.end(call.request_id)
    assert await both.read() is aio.EOF


@pytest.mark.parametrize("rpc", ["PostModelOutputs", "GenerateModelOutputs", "StreamModelOutputs"])
async def test_a_client_that_cancels(site: Site, channel: aio.Channel, rpc: str) -> None:
    runner = site.native()
    method = {"PostModelOutputs": "echo", "GenerateModelOutputs": "say", "StreamModelOutputs": "chat"}[rpc]
    asked = request("gateway", method, {"lines" if method == "chat" else "text": "hi"})
    under_way = getattr(Stub(channel), rpc)(given(asked) if method == "chat" else asked)
    call: Open = (await opened(runner))[0]
    under_way.cancel()
    assert await cancelled(runner, call) is CancelReason.DISCONNECT


async def test_a_channel_that_closes_cancels_its_calls(site: Site, channel: aio.Channel) -> None:
    runner = site.native()
    stream = Stub(channel).GenerateModelOutputs(request("gateway", "say", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, "a")
    await stream.read()
    await channel.close()
    assert await cancelled(runner, call) is CancelReason.DISCONNECT


async def test_failures_are_messages_and_never_a_status_of_grpcs(site: Site, channel: aio.Channel) -> None:
    site.native()
    stub = Stub(channel)
    stranger = (("authorization", "Key stranger"),)
    with anyio.fail_after(WAIT_S):
        refused = await stub.PostModelOutputs(request("gateway", "echo", {"text": ""}), metadata=stranger)
        assert texts([refused]) == ["CONN_KEY_INVALID"]
        stream = stub.GenerateModelOutputs(request("nope", "say", {"text": ""}))
        assert texts([message async for message in stream]) == ["MODEL_DOES_NOT_EXIST"]
        assert await stream.code() is grpc.StatusCode.OK
        empty = stub.StreamModelOutputs(given())
        assert texts([message async for message in empty]) == ["MODEL_INVALID_ARGUMENT"]
        missing = await stub.GetModel(service_pb2.GetModelRequest(model_id="nope"))
        assert missing.status.details.startswith("no runner of the model 'nope'")


async def test_bytes_that_are_no_message(site: Site, channel: aio.Channel) -> None:
    runner = site.native()
    raw = channel.stream_stream("/clarifai.api.V2/StreamModelOutputs")

    async def broken() -> AsyncIterator[bytes]:
        yield request("gateway", "chat", {"lines": "a"}).SerializeToString()
        yield b"\xff\xff"

    stream = raw(broken())
    (call,) = await opened(runner)
    await cancelled(runner, call)
    found = [service_pb2.MultiOutputResponse.FromString(message) async for message in stream]
    assert texts(found) == ["MODEL_INVALID_ARGUMENT"]


async def test_what_a_model_gives_goes_through(site: Site, channel: aio.Channel) -> None:
    runner = site.raw()
    stream = Stub(channel).GenerateModelOutputs(request("toy", "generate", {"text": "hi"}))
    (call,) = await opened(runner)
    runner.item(call.request_id, *(raw_item(output(str(number))) for number in range(100)))
    runner.end(call.request_id)
    assert texts([message async for message in stream]) == [str(number) for number in range(100)]
