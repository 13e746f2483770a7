"""Clients that leave, vanish, send slowly or do not read: noticed in time, and at nobody else's cost."""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import struct
from collections.abc import AsyncIterator
from time import perf_counter

import anyio
import pytest

from behaviour.checks import until
from behaviour.connect import HttpNdjson
from behaviour.promises import promise
from behaviour.proxy import nginx, through
from behaviour.raw_http import WAIT_S, Address, Connection, Departure
from behaviour.seam import Switch
from behaviour.served import Connect, hosted
from penstock import Runtime, current_call
from penstock.protocol.messages import CancelReason
from penstock.runtime.app import App
from penstock.testing.zoo import Zoo, model_zoo

pytestmark = pytest.mark.anyio

POST = b"POST /v2/execute HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
READERS = 50
MEGABYTE = 1_000_000


def _ask(
    connection: Connection, command: str, policy: str = "cancel", *, is_stream: bool = True, **input: object
) -> None:
    body = {"command": command, "is_stream": is_stream, "input": input, "on_disconnect": policy}
    connection.request("POST", "/v2/execute", json.dumps(body).encode())


# -- clients that leave ------------------------------------------------------------------------------


@promise("P5", "P6")
@pytest.mark.parametrize("ahead", [0, 1, 50, 500])
@pytest.mark.parametrize("how", ["fin", "rst", "half"])
async def test_leaving_is_felt_at_once_whatever_was_sent_ahead(
    connect_http: Connect, how: Departure, ahead: int
) -> None:
    rt = Runtime()
    felt: asyncio.Queue[float] = asyncio.Queue()

    @rt.streaming_command("silent")
    async def silent():
        try:
            yield current_call().request_id
            await asyncio.Event().wait()
        finally:
            felt.put_nowait(perf_counter())

    took = []
    async with connect_http(rt) as way:
        for _ in range(7):
            call = await way.open("silent")
            await call.until("streaming")
            connection: Connection = call.connection  # type: ignore[attr-defined]
            for _ in range(ahead):
                _ask(connection, "silent")
            await connection.drained()
            left = perf_counter()
            await call.drop(how)
            with anyio.fail_after(WAIT_S):
                took.append(await felt.get() - left)
        assert len(way.dispatcher.calls) == 7
    # Twenty times the promise, in all but one or two: the machine may do other things, too.
    assert sorted(took)[4] < 0.1


@promise("P6")
@pytest.mark.parametrize("how", ["fin", "rst", "half"])
async def test_leaving_is_felt_though_nothing_was_read(connect_http: Connect, how: Departure) -> None:
    zoo = model_zoo()
    async with connect_http(zoo.runtime) as way:
        connection = await Connection.open(way.address)
        connection.pause()
        _ask(connection, "flood", size=10_000)
        await zoo.journal.wait("started")
        await _held_back(way)
        await connection.leave(how)
        await zoo.journal.wait("cancelled")
        await zoo.journal.wait("aborted")
        await connection.aclose()


async def _held_back(way: HttpNdjson, calls: int = 1) -> None:
    """Return once the producers of all calls wait for their readers."""
    lives = way.dispatcher.calls
    await until(lambda: len(lives) == calls, lambda: len(lives))
    await until(lambda: all(live.readers.holding for live in lives), lambda: "producing")  # type: ignore[attr-defined]


@pytest.fixture
async def behind_nginx(server: tuple[Switch, Address]) -> AsyncIterator[tuple[Zoo, Connection]]:
    """The zoo, and a connection to it that leads through a proxy."""
    switch, address = server
    zoo = model_zoo()
    async with App(zoo.runtime) as app, nginx(address) as path:
        switch.inner = app
        yield zoo, await through(path)


@promise("P6")
@pytest.mark.parametrize("command", ["silent", "ticker", "flood"])
async def test_leaving_is_felt_behind_a_proxy(behind_nginx: tuple[Zoo, Connection], command: str) -> None:
    zoo, connection = behind_nginx
    input = {"ticker": {"n": 1_000_000, "dt": 0.001}, "flood": {"size": 1000}}.get(command, {})
    _ask(connection, command, **input)
    assert (await connection.head()).status == 200
    assert b'"accepted"' in await connection.piece()
    await zoo.journal.wait("started")
    await connection.leave("fin")
    await zoo.journal.wait("cancelled")


@promise("P6")
async def test_leaving_an_answer_is_felt_behind_a_proxy(behind_nginx: tuple[Zoo, Connection]) -> None:
    zoo, connection = behind_nginx
    _ask(connection, "silent", is_stream=False)
    await zoo.journal.wait("started")
    await connection.leave("fin")
    await zoo.journal.wait("cancelled")


# -- clients that vanish -----------------------------------------------------------------------------

SO_ATTACH_FILTER = 26  # of Linux


def hear_nothing(peer: socket.socket) -> None:
    """Have the kernel drop all that comes for ``peer``: it acknowledges nothing, as if it was off."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    peer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop)))


@promise("P5")
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
@pytest.mark.parametrize("is_stream", [True, False])
async def test_who_vanishes_is_missed(is_stream: bool) -> None:
    zoo = model_zoo()
    async with hosted(App(zoo.runtime), ping_s=2, silent_s=0.2) as (_, address):
        connection = await Connection.open(address)
        _ask(connection, "silent", is_stream=is_stream)
        if is_stream:
            await connection.head()
        await zoo.journal.wait("started")
        hear_nothing(connection.socket)
        vanished = perf_counter()
        await zoo.journal.wait("cancelled")
        # At most twice 1.5 x ping_s: on this scale the kernel's own steps are long.
        assert perf_counter() - vanished < 6
        await connection.leave("rst")


# -- clients that send slowly ------------------------------------------------------------------------


@promise("P15")
@pytest.mark.parametrize(
    "begun",
    [
        b"P",
        POST,
        POST + b"content-length: 9\r\n\r\n",
        POST + b"content-length: 9\r\n\r\n{",
        POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{",
    ],
)
async def test_half_a_request_is_not_waited_for(begun: bytes) -> None:
    zoo = model_zoo()
    async with hosted(App(zoo.runtime), header_s=0.1, body_idle_s=0.1) as (_, address):
        connection = await Connection.open(address)
        connection.send(begun)
        reply = await connection.reply()
        assert (reply.status, json.loads(reply.body)["code"]) == (408, "request_timeout")
        assert await connection.ended() == b""
        await connection.aclose()


@promise("P15")
async def test_drips_are_not_waited_for() -> None:
    zoo = model_zoo()
    async with hosted(App(zoo.runtime), header_s=0.2) as (_, address):
        connection = await Connection.open(address)
        connection.send(b"GET /health HTTP/1.1\r\nhost: test\r\n")
        reply = asyncio.get_running_loop().create_task(connection.reply())
        while not (await asyncio.wait((reply,), timeout=0.02))[0]:
            connection.send(b"x: y\r\n")
        assert (await reply).status == 408
        await connection.aclose()


# -- clients that do not read ------------------------------------------------------------------------


@promise("P14")
async def test_fifty_that_stop_reading_cost_a_megabyte_each_and_disturb_nobody() -> None:
    zoo = model_zoo()
    app = App(zoo.runtime)
    async with hosted(app) as (host, address):
        stopped = [await Connection.open(address) for _ in range(READERS)]
        for connection in stopped:
            connection.pause()
            _ask(connection, "flood", size=1000)
        await zoo.journal.wait("started", times=READERS)
        lives = list(app._store.live())
        await until(lambda: all(live.readers.holding for live in lives), lambda: "producing")
        held = sum(live.log.kept_size for live in lives)
        for protocol in host._server.server_state.connections:
            held += protocol.transport.get_write_buffer_size()
        assert held / READERS < MEGABYTE
        began = perf_counter()
        fast = await Connection.open(address)
        _ask(fast, "ticker", n=1000)
        assert (await fast.reply()).body.count(b"\n") == 1002
        assert perf_counter() - began < 2
        await fast.aclose()
        for connection in stopped:
            await connection.leave("rst")
        await zoo.journal.wait("cancelled", times=READERS)


@promise("P14")
@pytest.mark.parametrize(("policy", "status"), [("cancel", "cancelled"), ("continue", "streaming")])
async def test_who_reads_nothing_is_dropped_and_its_call_does_as_it_was_told(
    policy: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    zoo = model_zoo()
    app = App(zoo.runtime)
    async with hosted(app, slow_reader_s=0.2) as (_, address):
        connection = await Connection.open(address)
        connection.pause()
        _ask(connection, "flood", policy, size=1000)
        await zoo.journal.wait("started")
        (live,) = app._store.live()
        await until(lambda: live.readers.holding, lambda: "producing")
        await until(lambda: not live.readers, lambda: "read")
        assert "slow_consumer" in caplog.text
        await until(lambda: live.record().status == status, lambda: live.record().status)
        live.cancel(CancelReason.CALLER)
        await connection.leave("rst")
