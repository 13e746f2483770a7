"""Runners that speak gRPC, as a test says, and the gateway that they dial."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import grpc
from clarifai_grpc.grpc.api import resources_pb2, service_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2
from grpc import aio

from gateway.clarifai.replicas import METHODS, Visitor, said
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.binding import NoBindings
from penstock.gateway.clarifai.server import ClarifaiServer, Tls
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.clarifai.streams import Said, Told
from penstock.gateway.hub import Hub
from penstock.protocol.clarifai.signatures import write_signatures
from penstock.protocol.dispatch import LOCAL, Caller

PATH = "/clarifai.api.V2/ProcessRunnerItems"
WAIT_S = 10


class KeyRing:
    """Knows one key, or lets everybody in."""

    def __init__(self, key: str = "") -> None:
        self.key = key

    def enter(self, token: str | None, asked: Caller) -> Caller:
        self.enter_host(token)
        return LOCAL

    def enter_host(self, token: str | None) -> Visitor:
        if self.key and token != self.key:
            raise CallError("no such key is known here", ErrorCode.UNAUTHENTICATED)
        return Visitor(self.key)

    def still(self, caller: Caller) -> bool:
        return True


@asynccontextmanager
async def serving(
    hub: Hub, key: str = "", clients: Sequence[object] = (), tls: Tls | None = None, **link: Any
) -> AsyncIterator[ClarifaiServer]:
    """Serve a hub; its server has the attribute ``address``."""
    where: list[str] = []
    settings = LinkSettings(port=0, **link)
    server = ClarifaiServer(
        hub, KeyRing(key), "127.0.0.1", settings, NoBindings(), clients, tls, listening=where.append
    )
    await server.start()
    server.address = where[0].partition("://")[2]  # type: ignore[attr-defined]
    try:
        yield server
    finally:
        server.drain()
        for runner in hub.runners:
            runner.leave()
        await server.aclose()


class Wire:
    """One stream of a runner; what it writes are bytes."""

    def __init__(self, channel: Any, **metadata: str) -> None:
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        self.call = channel.stream_stream(PATH)(metadata=pairs)

    async def write(self, message: Said | bytes) -> None:
        await self.call.write(message if isinstance(message, bytes) else message.SerializeToString())

    async def read(self) -> Told:
        """Return what comes."""
        with anyio.fail_after(WAIT_S):
            data = await self.call.read()
        assert isinstance(data, bytes), "the stream has ended"
        told: Told = Told.FromString(data)
        return told

    async def code(self) -> grpc.StatusCode:
        """Return how the stream ends, whatever comes before."""
        with anyio.fail_after(WAIT_S):
            while isinstance(await self.call.read(), bytes):
                pass
            return await self.call.code()


def hello(runner: str = "toy", replica: str = "r1", *, control: bool = False) -> Said:
    """Return what a runner says first."""
    return Said(
        user_app_id=resources_pb2.UserAppIDSet(user_id="u1"),
        runner_id=f"control-{runner}" if control else runner,
        runner_replica_id=replica,
        compute_cluster_id="cc1",
        nodepool_id="np1",
        status=status_pb2.Status(code=codes.RUNNER_STREAM_START),
    )


class Dialler:
    """A runner, on one connection."""

    def __init__(self, address: str, replica: str = "r1", token: str = "", ca: bytes = b"") -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if ca:
            self.channel = aio.secure_channel(address, grpc.ssl_channel_credentials(ca), options=options)
        else:
            self.channel = aio.insecure_channel(address, options=options)
        self.replica = replica
        self._metadata = {"authorization": f"Key {token}"} if token else {}

    async def __aenter__(self) -> Dialler:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    def wire(self) -> Wire:
        """Open a stream, and say nothing."""
        return Wire(self.channel, **self._metadata)

    async def open(self, *, control: bool = False) -> Wire:
        """Open a stream with a hello."""
        wire = self.wire()
        await wire.write(hello(replica=self.replica, control=control))
        return wire

    async def come(self) -> Wire:
        """Be there; returns the stream for the first item."""
        first = await self.open()
        told = await first.read()
        message = said(told.runner_items[0].id, "")
        output = message.runner_item_outputs[0].multi_output_response.outputs[0]
        output.data.text.raw = write_signatures(METHODS)
        await first.write(message)
        await first.call.done_writing()
        assert await first.code() is grpc.StatusCode.OK
        return await self.open()


async def until(what: Callable[[], bool]) -> None:
    """Return once something is so."""
    with anyio.fail_after(WAIT_S):
        while not what():
            await _a_while()


async def _a_while() -> None:
    await anyio.sleep(0.002)


def unknown_rpc(channel: Any) -> Any:
    """Return an RPC that a gateway has no use for."""
    return channel.unary_unary(
        "/clarifai.api.V2/ListConcepts",
        request_serializer=service_pb2.ListConceptsRequest.SerializeToString,
    )(service_pb2.ListConceptsRequest())
