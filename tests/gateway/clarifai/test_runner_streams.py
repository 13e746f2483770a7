"""Runners' streams over gRPC: however badly they behave, only a few statuses ever end them, and others are
served on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import grpc
import pytest
from clarifai_grpc.grpc.api.service_pb2 import (
    MultiOutputResponse,
    PostModelOutputsRequest,
    SingleModelResponse,
)
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from grpc import aio

from behaviour.certificates import certify
from gateway.clarifai.dialling import WAIT_S, Dialler, KeyRing, hello, serving, unknown_rpc, until
from gateway.clarifai.replicas import said, text_of
from penstock.calls.live import Live
from penstock.errors import PenstockError
from penstock.gateway.clarifai import line, service
from penstock.gateway.clarifai.binding import NoBindings
from penstock.gateway.clarifai.opens import OpenRate
from penstock.gateway.clarifai.server import ClarifaiServer, Tls
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.hub import Hub
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.clarifai.names import GENERATE
from penstock.protocol.clarifai.raw import read_response, write_request
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Frame, Start, decode_frame
from runner.clarifai.one_loop import anyio_backend, one_loop

__all__ = ["anyio_backend", "one_loop"]  # fixtures
pytestmark = pytest.mark.anyio
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that are refused end soon."""
    monkeypatch.setattr(service, "REFUSED_S", 0.05)
    monkeypatch.setattr(line, "REFUSED_S", 0.05)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub(settings=GatewaySettings(hello_s=2.0)) as hub:
        yield hub


@pytest.fixture
async def server(hub: Hub) -> AsyncIterator[ClarifaiServer]:
    async with serving(hub) as server:
        yield server


@pytest.fixture
async def runner(server: ClarifaiServer) -> AsyncIterator[Dialler]:
    async with Dialler(server.address) as runner:  # type: ignore[attr-defined]
        yield runner


async def call(hub: Hub, command: str, text: str = "a") -> Live:
    await until(lambda: any(one.has_room(command) for one in hub.runners))
    return await hub.open(Start(command=command, is_stream=True, input=text_of(text)), LOCAL)


async def frames(live: Live) -> list[Frame]:
    with anyio.fail_after(WAIT_S):
        async with live.reader() as reader:
            return [decode_frame(line) async for batch in reader for line in batch.lines]


async def test_headers_come_before_anything_is_said(runner: Dialler) -> None:
    wire = runner.wire()
    with anyio.fail_after(WAIT_S):
        await wire.call.initial_metadata()


async def test_a_call_over_grpc(hub: Hub, runner: Dialler) -> None:
    wire = await runner.come()
    live = await call(hub, "toy.generate")
    item = (await wire.read()).runner_items[0]
    for number in range(3):
        await wire.write(said(item.id, f"a{number}"))
    await wire.call.done_writing()
    assert [frame.data for frame in await frames(live) if frame.status == "streaming"] == ["a0", "a1", "a2"]
    assert await wire.code() is OK


async def test_a_stream_that_is_cut_off_is_no_end(hub: Hub, runner: Dialler) -> None:
    wire = await runner.come()
    for _ in range(5):
        live = await call(hub, "toy.generate")
        item = (await wire.read()).runner_items[0]
        await wire.write(said(item.id, "a0"))
        async with live.reader() as reader:
            await reader.__anext__()
            wire.call.cancel()
        last = (await frames(live))[-1]
        assert (last.status, last.code) in (("error", "unavailable"), ("cancelled", None))
        assert last.reason in (None, "disconnect")
        wire = await runner.open()


@pytest.mark.parametrize(
    "first",
    [b"", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"x" * 70_000, said("x", "y"), hello(runner="")],
    ids=["nothing", "garbage", "truncated", "oversized", "an output", "no id"],
)
async def test_what_is_no_hello_is_refused_with_a_message(hub: Hub, runner: Dialler, first: object) -> None:
    wire = runner.wire()
    await wire.write(first)  # type: ignore[arg-type]
    assert (await wire.read()).status.code == codes.MODEL_INVALID_ARGUMENT
    assert await wire.code() is OK
    assert not len(hub.runners)


async def test_deeply_nested_messages_are_no_outputs(hub: Hub, runner: Dialler) -> None:
    wire = await runner.come()
    live = await call(hub, "toy.predict")
    item = (await wire.read()).runner_items[0]
    message = said(item.id, "x")
    data = message.runner_item_outputs[0].multi_output_response.outputs[0].data.parts[0].data
    for _ in range(90):
        data = data.parts.add().data
    await wire.write(message.SerializeToString())
    last = (await frames(live))[-1]
    assert (last.status, last.code) == ("error", "upstream_failed")
    assert await wire.code() is OK
    wire = await runner.open()
    live = await call(hub, "toy.predict")
    await wire.write(said((await wire.read()).runner_items[0].id, "well"))
    assert (await frames(live))[-1].data == "well"


async def test_a_wrong_key_is_told_in_a_message(hub: Hub) -> None:
    async with serving(hub, key="right") as server:
        for token in ("", "wrong"):
            async with Dialler(server.address, token=token) as runner:  # type: ignore[attr-defined]
                wire = runner.wire()
                assert (await wire.read()).status.code == codes.CONN_KEY_INVALID
                assert await wire.code() is OK
        async with Dialler(server.address, token="right") as runner:  # type: ignore[attr-defined]
            await runner.come()
        assert len(server.replicas) == 1


async def test_whoever_says_nothing_is_left(hub: Hub) -> None:
    object.__setattr__(hub, "settings", GatewaySettings(hello_s=0.05))
    async with serving(hub) as server, Dialler(server.address) as runner:  # type: ignore[attr-defined]
        wire = runner.wire()
        assert (await wire.read()).status.code == codes.RPC_REQUEST_TIMEOUT
        assert await wire.code() is OK
        silent = runner.wire()
        await silent.call.done_writing()
        assert await silent.code() is OK


async def test_a_control_stream_carries_cancels(hub: Hub, runner: Dialler) -> None:
    control = await runner.open(control=True)
    wire = await runner.come()
    live = await call(hub, "toy.generate")
    item = (await wire.read()).runner_items[0]
    live.cancel(CancelReason.CALLER)
    told = await control.read()
    assert [each.id for each in told.runner_items] == [item.id]
    await wire.call.done_writing()
    assert (await frames(live))[-1].status == "cancelled"
    for _ in range(service.MAX_SAID):  # nothing is to be said there
        await control.write(hello(control=True))
    assert await control.code() is OK


async def test_all_streams_end_well_when_the_gateway_stops(hub: Hub) -> None:
    async with serving(hub) as server, Dialler(server.address) as runner:  # type: ignore[attr-defined]
        control = await runner.open(control=True)
        idle = await runner.come()
        await until(lambda: any(one.takes for one in hub.runners))
        server.drain()
        late = Dialler(server.address, "another")  # type: ignore[attr-defined]
        async with late:
            stranger = await late.open()
            assert (await stranger.read()).status.code != codes.SUCCESS
            for one in hub.runners:
                one.leave()
            assert (await idle.code(), await control.code()) == (OK, OK)
            closing = asyncio.get_running_loop().create_task(server.aclose())
            assert await stranger.code() in (OK, UNAVAILABLE)
            await closing


async def test_a_hundred_replicas_come_at_once_and_come_again(hub: Hub, server: ClarifaiServer) -> None:
    async def stay(number: int) -> None:
        async with Dialler(server.address, f"replica-{number}") as runner:  # type: ignore[attr-defined]
            await runner.open(control=True)
            wire = await runner.come()
            await ready.wait()
            wire.call.cancel()
            await runner.open()
            await over.wait()

    ready, over = asyncio.Event(), asyncio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(stay, number)
            await until(lambda: sum(one.has_room("toy.predict") for one in hub.runners) == 100)
            ready.set()
            await until(lambda: sum(one.has_room("toy.predict") for one in hub.runners) == 100)
            assert len({one.name for one in hub.runners}) == 100
            over.set()


async def test_a_storm_of_streams_is_slowed_down(hub: Hub, runner: Dialler) -> None:
    await runner.come()
    await until(lambda: len(hub.runners) == 1)
    (replica,) = hub.runners
    replica.opens = OpenRate(burst=0, per_s=20)  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(3):
        wire = await runner.open()
        await wire.call.done_writing()
        assert await wire.code() is OK
    assert loop.time() - began > 0.1


async def test_what_nobody_serves_is_not_implemented(runner: Dialler) -> None:
    with pytest.raises(aio.AioRpcError) as refused:
        await unknown_rpc(runner.channel)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_without_a_key_is_not_read(hub: Hub) -> None:
    class Models:
        async def GetModel(self, request: object, context: object) -> object:
            raise AssertionError("it was read")

        async def StreamModelOutputs(self, requests: object, context: object) -> None:
            raise AssertionError("it was read")

    async with (
        serving(hub, key="right", clients=(Models(),)) as server,
        Dialler(server.address) as client,  # type: ignore[attr-defined]
    ):
        get = client.channel.stream_unary(
            "/clarifai.api.V2/GetModel", response_deserializer=SingleModelResponse.FromString
        )
        stream = client.channel.stream_stream(
            "/clarifai.api.V2/StreamModelOutputs", response_deserializer=MultiOutputResponse.FromString
        )
        with anyio.fail_after(WAIT_S):  # the requests never come
            assert (await get()).status.code == codes.CONN_KEY_INVALID
            assert (await stream().read()).status.code == codes.CONN_KEY_INVALID


async def test_raw_commands_carry_messages_as_they_are(hub: Hub, runner: Dialler) -> None:
    wire = await runner.come()
    await until(lambda: any(one.has_room("toy.predict") for one in hub.runners))
    start = Start(command=f"toy.{GENERATE}", is_stream=True, input=b'{"request": "%%%"}')
    assert (await frames(await hub.open(start, LOCAL)))[-1].code == "invalid_argument"
    request = PostModelOutputsRequest(model_id="toy", version_id="v1")
    start = Start(command=f"toy.{GENERATE}", is_stream=True, input=write_request(request))
    live = await hub.open(start, LOCAL)
    item = (await wire.read()).runner_items[0]
    assert item.post_model_outputs_request == request
    message = said(item.id, "x", code=codes.FAILURE)
    await wire.write(message)
    await wire.call.done_writing()
    _, shown, last = await frames(live)
    response = read_response(json.dumps(shown.data).encode())
    assert response == message.runner_item_outputs[0].multi_output_response
    assert last.status == "completed"


async def test_a_port_that_is_taken_is_no_port(hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ClarifaiServer(
            hub, KeyRing(), "127.0.0.1", LinkSettings(port=taken.getsockname()[1]), NoBindings()
        )
        with pytest.raises(PenstockError, match="--clarifai-port"):
            await server.start()
        await server.aclose()


async def test_a_gateway_with_a_certificate_speaks_nothing_in_clear(hub: Hub, tmp_path: Path) -> None:
    made = certify(tmp_path)
    async with serving(hub, tls=Tls(made.certificate, made.key)) as server:
        async with Dialler(server.address, ca=made.ca.read_bytes()) as runner:  # type: ignore[attr-defined]
            await runner.come()
            await until(lambda: len(hub.runners) == 1)
        async with Dialler(server.address) as runner:  # type: ignore[attr-defined]
            with pytest.raises(aio.AioRpcError) as refused:
                await runner.wire().code()
            assert refused.value.code() is UNAVAILABLE
