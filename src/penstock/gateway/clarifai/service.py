"""``V2.ProcessRunnerItems``: the streams of runners, each served by a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import grpc
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.calls.clock import Clock
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai.guard import Guard, metadata_of, token_in
from penstock.gateway.clarifai.hello import Hello, read_hello
from penstock.gateway.clarifai.lanes import PROOF, Lane
from penstock.gateway.clarifai.line import REFUSED_S, GrpcLine
from penstock.gateway.clarifai.opens import OpenRate
from penstock.gateway.clarifai.replica import Replica
from penstock.gateway.clarifai.replicas import Replicas
from penstock.gateway.clarifai.streams import refusal
from penstock.gateway.door import Visitor
from penstock.gateway.hub import Hub
from penstock.protocol.clarifai.statuses import status_of

MAX_SAID = 100  # messages on a control stream, on which nothing is to be said
MAX_STRANGERS = 10_000  # peers that opened streams for nothing, and are remembered
BURST = 20

_log = logging.getLogger("penstock.gateway")


class RunnerStreams:
    """Serves the streams of runners.

    However a stream ends, its gRPC status is OK, CANCELLED, DEADLINE_EXCEEDED or UNAVAILABLE: with any other
    a runner's thread ends for good.

    Args:
        hub: Whose runners they become.
        replicas: Those that are there.
        guard: Lets them in.
        clock: Tells the time.
    """

    def __init__(self, hub: Hub, replicas: Replicas, guard: Guard, clock: Clock) -> None:
        self._hub = hub
        self._replicas = replicas
        self._guard = guard
        self._clock = clock
        self._strangers: dict[str, OpenRate] = {}
        self._closing = False

    def close(self) -> None:
        """Take no more streams; runners try again, here or at another gateway."""
        self._closing = True

    async def serve(self, _: AsyncIterator[bytes], context: Any) -> None:
        """Serve a stream to its end."""
        peer = context.peer()
        try:
            await self._wait_for_strangers(peer)
            # First of all: without it a runner's control thread never comes back from a lost connection.
            await context.send_initial_metadata(())
            if self._closing:
                context.set_code(grpc.StatusCode.UNAVAILABLE)
                context.set_details("the gateway is stopping")
                return
            try:
                visitor, hello, replica = await self._let_in(context)
            except CallError as error:
                _log.warning("a stream of a Clarifai runner was refused: %s", error.message)
                self._count_stranger(peer)
                await self._refuse(context, status_of(error))
                return
            if hello is None or replica is None:
                self._count_stranger(peer)
                return
            await self._wait(replica.opens.take(self._clock.monotonic()))
            if hello.control:
                await self._serve_control(context, replica)
            else:
                await self._serve_lane(context, replica, hello, visitor)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  the top of a link: a bug here ends no thread of a runner
            _log.exception("a stream of a Clarifai runner failed")

    # -- who it is -----------------------------------------------------------------------------------

    async def _let_in(self, context: Any) -> tuple[Visitor, Hello | None, Replica | None]:
        metadata = metadata_of(context.invocation_metadata())
        visitor = self._guard.enter_host(token_in(metadata))
        wait_s = self._hub.settings.hello_s
        try:
            with anyio.fail_after(wait_s):
                data = await context.read()
        except TimeoutError:
            raise CallError(f"no hello within {wait_s:g} s", ErrorCode.REQUEST_TIMEOUT) from None
        if not isinstance(data, bytes):
            return visitor, None, None
        hello = read_hello(data, metadata, visitor.key)
        return visitor, hello, self._replicas.of(hello, visitor)

    async def _refuse(self, context: Any, status: status_pb2.Status) -> None:
        """Say why; the runner then leaves, and tries again after a second."""
        await context.write(refusal(status).SerializeToString())
        await asyncio.sleep(REFUSED_S)

    # -- streams -------------------------------------------------------------------------------------

    async def _serve_control(self, context: Any, replica: Replica) -> None:
        line = GrpcLine(context, self._hub.links)
        replica.open_control(line)
        try:
            for _ in range(MAX_SAID):
                if not isinstance(await context.read(), bytes):
                    break
        except asyncio.CancelledError:
            if not line.ending:
                raise
        finally:
            replica.close_control(line)

    async def _serve_lane(self, context: Any, replica: Replica, hello: Hello, visitor: Visitor) -> None:
        line = GrpcLine(context, self._hub.links)
        lane = self._replicas.open_lane(replica, line, hello, visitor)
        why = "its stream broke"
        try:
            await self._read(context, line, lane)
        except asyncio.CancelledError:
            if not line.ending:
                raise
        except Exception as error:
            why = f"its stream broke: {error!r}"
            raise
        finally:
            lane.broke(why)

    async def _read(self, context: Any, line: GrpcLine, lane: Lane) -> None:
        read, heard, monotonic = context.read, lane.heard, self._clock.monotonic
        while True:
            while not lane.may_read:
                await line.until_resumed()
            lane.reading_since = monotonic()
            data = await read()
            lane.reading_since = None
            if not isinstance(data, bytes):
                break
            heard(data)
        if lane.stream.streams:
            # A stream that was cut off ends just like one that was closed, but cannot be written to.
            await context.write(PROOF)
        lane.half_closed()

    # -- how often -----------------------------------------------------------------------------------

    async def _wait(self, delay_s: float) -> None:
        if delay_s > 0:
            due = asyncio.Event()
            timer = self._clock.call_later(delay_s, due.set)
            try:
                await due.wait()
            finally:
                timer.cancel()

    async def _wait_for_strangers(self, peer: str) -> None:
        """Have a peer wait that opens streams again and again for nothing."""
        rate = self._strangers.get(peer)
        if rate is not None:
            now = self._clock.monotonic()
            if rate.idle_at(now):
                del self._strangers[peer]
            else:
                await self._wait(rate.take(now))
                rate.give_back()

    def _count_stranger(self, peer: str) -> None:
        while len(self._strangers) >= MAX_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        self._strangers.setdefault(peer, OpenRate(BURST)).take(self._clock.monotonic())
