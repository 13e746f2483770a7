"""Streams cut off at any byte, callers that ask for what is not theirs, and models that are silent."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import uvicorn

from behaviour.connect import Refused
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S, Address, Connection
from behaviour.served import Connect, hosted
from penstock import CallError, Runtime
from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner
from penstock.client import AsyncClient, AsyncStream
from penstock.client.backoff import ONCE
from penstock.errors import ConnectionFailed, StreamTruncated
from penstock.protocol.dispatch import LOCAL, Caller
from penstock.protocol.messages import CancelReason, Frame, Start
from penstock.runtime.app import App
from penstock.server.asgi import Application
from penstock.server.batching import BatchingWebSocket
from penstock.server.settings import ServerSettings
from penstock.server.websocket import Socket
from penstock.testing.clock import FakeClock
from penstock.testing.zoo import model_zoo
from server.peer import PING, Peer

pytestmark = pytest.mark.anyio

FORMS = ["ndjson", "sse", "websocket"]


class Cutter:
    """A relay that ends each connection behind a number of bytes from the server.

    Attributes:
        after: That number.
        passed: How many bytes have come through on the latest connection.
    """

    def __init__(self, server: Address) -> None:
        self._server = server
        self._tasks = TaskOwner()
        self.after = 1
        self.passed = 0

    async def __aenter__(self) -> Address:
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        address: Address = self._listener.sockets[0].getsockname()
        return address

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._tasks.aclose()
        await self._listener.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._server)
        up = self._tasks.start(_copy(reader, back))
        left, self.passed = self.after, 0
        with suppress(ConnectionError):
            while left and (data := await there.read(left)):
                left -= len(data)
                self.passed += len(data)
                writer.write(data)
        up.cancel()
        writer.close()
        back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)


def client_of(form: Any, address: Address) -> AsyncClient:
    host, port = address[:2]
    if form == "websocket":
        return AsyncClient(f"ws://{host}:{port}", retry=ONCE)
    return AsyncClient(f"http://{host}:{port}", form=form, retry=ONCE)


async def read_until_cut(stream: AsyncStream[Any]) -> tuple[list[Frame], bool]:
    """Return the frames that came, and whether they were all."""
    frames = []
    try:
        async with stream:
            async for frame in stream.frames():
                frames.append(frame)
    except (ConnectionFailed, StreamTruncated):
        return frames, False
    return frames, True


@promise("P12")
@pytest.mark.parametrize("form", FORMS)
async def test_a_stream_cut_at_any_byte_is_resumed_without_loss_or_repetition(
    connect_http: Connect, form: str
) -> None:
    rt = Runtime()

    @rt.streaming_command("count")
    async def count():
        for i in range(2):
            yield {"i": i, "text": "zwölf €"}

    async with connect_http(rt) as way:
        cutter = Cutter(way.address)
        async with cutter as address, client_of(form, way.address) as whole:
            whole_stream, seen = False, set()
            while not whole_stream:
                name = f"cut{cutter.after}"
                async with client_of(form, address) as cut:
                    stream = cut.stream("count", task_id=name, on_disconnect="continue")
                    with anyio.fail_after(WAIT_S):
                        got, whole_stream = await read_until_cut(stream)
                assert cutter.passed <= cutter.after
                seen.add(stream.last_seq)
                if not any(live.task_id == name for live in way.dispatcher.calls):
                    assert (form, got, cutter.after < 200) == ("websocket", [], True)  # no handshake
                elif not whole_stream:
                    got += await rest_of(whole, name, stream.last_seq, got)
                    assert [(frame.seq, frame.status) for frame in got] == EXPECTED
                    items = [frame.data for frame in got[1:3]]
                    assert items == [{"i": i, "text": "zwölf €"} for i in range(2)]
                cutter.after += 1
            assert seen == {-1, 0, 1, 2, 3}
            assert cutter.after > 700  # or it was not cut at all


EXPECTED = [(0, "accepted"), (1, "streaming"), (2, "streaming"), (3, "completed")]


async def rest_of(client: AsyncClient, name: str, after: int, got: list[Frame]) -> list[Frame]:
    """Return what follows what was ``got``, which may be less than the client has seen."""
    after = min(after, len(got) - 1)
    if after == 3:
        return []
    with anyio.fail_after(WAIT_S):
        async with client.resume(name, after=after) as rest:
            return [frame async for frame in rest.frames()]


@promise("P13")
async def test_the_frames_of_another_key_are_not_found() -> None:
    rt = Runtime()

    @rt.streaming_command("secret")
    async def secret():
        yield "canary"

    mine, other = Caller(key="mine"), Caller(key="other")
    async with App(rt) as app:
        sent: list[Any] = []
        live = await app.open(_start("secret", "task"), mine)
        for call_id in ("task", live.request_id):
            with pytest.raises(CallError, match="no task"):
                app.find(call_id, other)
            with pytest.raises(CallError, match="no task"):
                await app.cancel(call_id, CancelReason.CALLER, other)
            asks = [
                {"type": kind, "task_id": call_id} for kind in ("resume", "cancel", "detach", "input_end")
            ]
            sent += await _told(app, other, [*asks, {"type": "input", "task_id": call_id, "data": 1}])
        assert app.tasks(other) == []
        assert app.find("task", mine) is live
        assert live.cancel_reason is None
        statuses = [(message.get("code") or message["status"]) for message in sent]
        assert statuses == ["not_found", "not_found", "detached", "not_found", "not_found"] * 2
        assert "canary" not in json.dumps(sent)
        assert (await app.open(_start("secret", "task"), other)).task_id == "task"  # names are each key's own


def _start(command: str, task_id: str) -> Start:
    return Start(command=command, task_id=task_id, is_stream=True)


async def _told(app: App, caller: Caller, asks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a WebSocket of ``caller`` is answered."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answers: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            answers.append(json.loads(message["text"]))
        if len(answers) == len(asks):
            incoming.put_nowait({"type": "websocket.disconnect"})

    incoming.put_nowait({"type": "websocket.connect"})
    for ask in asks:
        incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(ask)})
    with anyio.fail_after(WAIT_S):
        await Socket(app, caller, lambda: 0.0, send, {}).serve(incoming.get)
    return answers


@promise("P13")
@pytest.mark.parametrize("change", [str.upper, lambda i: i[:-1], lambda i: i + "0", lambda i: "0" * 32])
async def test_an_id_that_is_nearly_right_is_wrong(connect: Connect, change: Any) -> None:
    async with connect(model_zoo().runtime) as way:
        call = await way.open("echo", {"value": "x"}, task_id="Mine.1")
        await call.frames()
        for call_id in (call.request_id, call.task_id):
            wrong = change(call_id)
            if wrong in (call.request_id, call.task_id):
                continue
            for ask in (way.resume, way.cancel, way.record):
                with pytest.raises(Refused) as refused:
                    await ask(wrong)
                assert (refused.value.status, refused.value.code) == (404, "not_found")


@promise("P13")
@pytest.mark.parametrize("after", ['"1"', '"x"', "1.5", "[]", "{}", "true", "9" * 400, "-2", "22", '""'])
async def test_a_cursor_over_a_websocket_that_is_no_frame_is_refused(
    connect_http: Connect, after: str
) -> None:
    async with connect_http(model_zoo().runtime) as way:
        call = await way.open("ticker", {"n": 20}, task_id="mine")
        await call.frames()
        async with Peer.open(way.address) as peer:
            peer.text(f'{{"type":"resume","task_id":"mine","after":{after}}}')
            error = await peer.receive()
            assert await peer.until_pong() == []
        assert (error["status"], error["code"], error["task_id"]) == ("error", "invalid_argument", "mine")


# -- silence -----------------------------------------------------------------------------------------

PROXY_S = 20.0  # how long a proxy bears a connection on which nothing moves


@asynccontextmanager
async def timed(app: App, clock: Clock) -> AsyncIterator[Address]:
    """Serve ``app`` in the time of ``clock``."""
    application = Application(app, clock=clock)
    config = uvicorn.Config(application, ws=BatchingWebSocket, lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup(sockets=[listener])
        try:
            yield listener.getsockname()
        finally:
            await server.shutdown(sockets=[listener])
            await application.aclose()


@promise("P17")
@pytest.mark.parametrize(
    ("accept", "sign"),
    [("application/x-ndjson", b'{"type":"keepalive","timestamp":'), ("text/event-stream", b":")],
)
async def test_a_silent_model_does_not_lose_its_stream_to_a_proxy(accept: str, sign: bytes) -> None:
    clock, zoo = FakeClock(), model_zoo()
    async with App(zoo.runtime, clock=clock) as app, timed(app, clock) as address:
        connection = await Connection.open(address)
        body = b'{"command": "silent", "is_stream": true, "task_id": "mine"}'
        connection.request("POST", "/v2/execute", body, {"accept": accept})
        await connection.head()
        assert b'"accepted"' in await connection.piece()
        for _ in range(8):  # two minutes
            clock.advance(ServerSettings().silent_s)
            assert ServerSettings().silent_s < PROXY_S
            assert (await connection.piece()).startswith(sign)
        live = app.find("mine", LOCAL)
        assert live.log.next_seq == 1  # signs of life are not in the log
        live.cancel(CancelReason.CALLER)
        assert b'"cancelled"' in await connection.body()
        await connection.aclose()


@promise("P17")
async def test_a_silent_websocket_is_pinged() -> None:
    assert ServerSettings().ping_s == 30
    zoo = model_zoo()
    async with App(zoo.runtime) as app, hosted(app, ping_s=0.05) as (_, address), Peer.open(address) as peer:
        peer.send("command", command="silent", is_stream=True, task_id="mine")
        assert (await peer.receive())["status"] == "accepted"
        assert (await peer.frame())[0] == PING
