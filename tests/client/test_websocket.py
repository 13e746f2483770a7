"""The WebSocket transport: what only it has, and servers that break off or break the rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve

from client.conftest import QUICK, WAIT_S, project, served
from penstock.client import AsyncClient
from penstock.client.backoff import ONCE
from penstock.client.inbox import MAX_WAITING
from penstock.client.websocket import WebSocketTransport
from penstock.errors import (
    CallCancelled,
    CallError,
    ConnectionFailed,
    ErrorCode,
    PenstockError,
    RemoteProtocolError,
    StreamTruncated,
)
from penstock.protocol.dispatch import LOCAL
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio


def more(rt: Runtime) -> Runtime:
    @rt.streaming_command("upper")
    async def upper(words: AsyncIterator[str]) -> AsyncIterator[str]:
        async for word in words:
            yield word.upper()

    @rt.streaming_command("flood", concurrency=1024)
    async def flood(items: int, size: int = 1000) -> AsyncIterator[str]:
        for number in range(items):
            yield f"{number:010}" * (size // 10)

    @rt.streaming_command("wait", concurrency=1024)
    async def wait() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    return rt


@pytest.fixture
async def app(seen: SimpleNamespace) -> AsyncIterator[App]:
    async with App(more(project(seen))) as app:
        yield app


@pytest.fixture
async def url(app: App) -> AsyncIterator[str]:
    """A server of ``app``."""
    async with served(app) as url:
        yield url.replace("http", "ws")


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url) as client:
        with anyio.fail_after(2 * WAIT_S):
            yield client


def transport(client: AsyncClient) -> WebSocketTransport:
    assert isinstance(client._transport, WebSocketTransport)
    return client._transport


def connections(client: AsyncClient) -> int:
    """How many sockets are read."""
    return len(transport(client)._reading)


# -- one socket --------------------------------------------------------------------------------------


async def test_many_calls_share_one_socket(client: AsyncClient) -> None:
    results: dict[int, list[int]] = {}

    async def read(n: int) -> None:
        async with client.stream("tick", n=n) as stream:
            results[n] = [item["n"] async for item in stream]

    async with anyio.create_task_group() as group:
        for n in range(64):
            group.start_soon(read, n)
    assert results == {n: list(range(n)) for n in range(64)}
    assert connections(client) == 1


@pytest.mark.parametrize("path", ["", "/", "/ws", "/v2/ws"])
async def test_a_url_may_name_the_path(url: str, path: str) -> None:
    async with AsyncClient(url + path) as client:
        assert await client.run("echo", text="a") == {"text": "a"}
        assert (await client.health()).status == "healthy"


async def test_more_calls_than_a_socket_takes_get_another(client: AsyncClient) -> None:
    async with anyio.create_task_group() as group:

        async def hold(n: int) -> None:
            async with client.stream("wait", task_id=f"t{n}") as stream:
                assert await stream.__anext__() == 1
                held.append(n)
                await anyio.sleep_forever()

        held: list[int] = []
        for n in range(300):
            group.start_soon(hold, n)
        while len(held) < 300:
            await anyio.lowlevel.checkpoint()
        assert connections(client) == 2
        group.cancel_scope.cancel()


async def test_a_name_in_use_is_refused_and_the_call_that_has_it_is_not_disturbed(
    client: AsyncClient,
) -> None:
    async with client.stream("wait", task_id="mine") as stream:
        with pytest.raises(CallError) as caught:
            await client.stream("wait", task_id="mine").__aenter__()
        assert caught.value.code is ErrorCode.CONFLICT
        assert await stream.__anext__() == 1
        assert await stream.cancel() == "cancelled"
        with pytest.raises(CallCancelled):
            await stream.__anext__()
        assert await client.cancel("mine") == "already_finished"


async def test_a_call_is_read_twice_at_once(client: AsyncClient) -> None:
    async with client.stream("wait", task_id="mine") as stream, client.resume("mine") as again:
        assert await stream.__anext__() == await again.__anext__() == 1
        assert await client.cancel("mine") == "cancelled"
        for each in (stream, again):
            with pytest.raises(CallCancelled):
                await each.__anext__()


async def test_a_call_is_resumed_by_its_request_id(client: AsyncClient) -> None:
    async with client.stream("tick", n=3, task_id="mine") as stream:
        assert [item async for item in stream]
    async with client.resume(stream.request_id or "", after=1) as again:
        assert [frame.seq async for frame in again.frames()] == [2, 3, 4]
        assert again.task_id == stream.request_id


# -- input -------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "websocket"])
async def with_input(request: pytest.FixtureRequest, app: App, url: str) -> AsyncIterator[AsyncClient]:
    """A client over each way in that input streams can take."""
    async with AsyncClient(app if request.param == "local" else url) as client:
        with anyio.fail_after(WAIT_S):
            yield client


async def test_input_follows_the_request(with_input: AsyncClient) -> None:
    async with with_input.stream("upper", words=["a"], more_input=True) as stream:
        assert await stream.__anext__() == "A"
        for word in ("b", "c"):
            await stream.send(word)
            assert await stream.__anext__() == word.upper()
        await stream.send("d")
        await stream.end_input()
        assert [item async for item in stream] == ["D"]
        assert stream.status == "completed"


async def test_input_that_is_all_there_is_needs_no_end(with_input: AsyncClient) -> None:
    async with with_input.stream("upper", words=["a", "b"]) as stream:
        assert [item async for item in stream] == ["A", "B"]
    assert await with_input.run("upper", words=["a", "b"]) == "B"


async def test_input_that_is_refused_ends_nothing(with_input: AsyncClient) -> None:
    async with with_input.stream("upper", words=[], more_input=True) as stream:

        async def refused() -> None:
            await stream.send(5)
            await stream.__anext__()

        with pytest.raises(CallError) as caught:
            await refused()
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
        await stream.send("a")
        await stream.end_input()
        assert [item async for item in stream] == ["A"]


async def test_input_that_is_no_json_is_refused_at_once(with_input: AsyncClient) -> None:
    async with with_input.stream("upper", words=[], more_input=True) as stream:
        with pytest.raises(CallError, match="cannot be sent"):
            await stream.send(float("nan"))


async def test_input_does_not_travel_over_http(url: str) -> None:
    async with AsyncClient(url.replace("ws", "http")) as client:
        with pytest.raises(CallError, match="ws://127") as caught:
            await client.stream("upper", words=[], more_input=True).__aenter__()
        assert caught.value.code is ErrorCode.NOT_IMPLEMENTED
        async with client.stream("wait") as stream:
            for tell in (stream.end_input(), stream.send("a")):
                with pytest.raises(CallError, match="do not travel over HTTP"):
                    await tell


# -- readers that are slow ---------------------------------------------------------------------------


async def test_a_slow_reader_holds_up_nobody_and_misses_nothing(client: AsyncClient, app: App) -> None:
    items = 20_000
    async with client.stream("flood", items=items, task_id="slow") as slow:
        reply: Any = slow._reply
        while reply.source in transport(client)._sockets:  # until it has a socket of its own
            await anyio.lowlevel.checkpoint()
        for n in range(20):
            async with client.stream("tick", n=n) as quick:
                assert len([item async for item in quick]) == n
        assert app.find("slow", LOCAL).ending is None  # its producer waits
        assert reply.inbox._size <= 2 * MAX_WAITING
        assert connections(client) == 2
        assert [item[:10] async for item in slow] == [f"{n:010}" for n in range(items)]
        assert slow.metrics["items"] == items


async def test_a_slow_reader_can_cancel(client: AsyncClient) -> None:
    async with client.stream("flood", items=10**9, task_id="slow") as slow:
        reply: Any = slow._reply
        while reply.source in transport(client)._sockets:
            await anyio.lowlevel.checkpoint()
        assert await slow.cancel() == "cancelled"
        with pytest.raises(CallCancelled):
            async for _ in slow:
                pass


@pytest.mark.parametrize("moved", [False, True])
async def test_a_slow_reader_can_leave(client: AsyncClient, app: App, moved: bool) -> None:
    async with client.stream("flood", items=10**9, task_id="slow") as slow:
        reply: Any = slow._reply
        while reply._moving is None or (moved and not reply._moving.done()):
            await anyio.lowlevel.checkpoint()
    live = app.find("slow", LOCAL)
    while live.ending is None:
        await anyio.lowlevel.checkpoint()
    assert live.record().reason == "disconnect"
    assert await client.run("echo", text="a") == {"text": "a"}
    while connections(client) > 1:
        await anyio.lowlevel.checkpoint()


# -- connections that break --------------------------------------------------------------------------


async def test_the_streams_of_a_dropped_socket_are_read_on(client: AsyncClient) -> None:
    one = client.stream("wait", task_id="one", on_disconnect="continue")
    two = client.stream("wait", task_id="two", on_disconnect="continue")
    async with one, two:
        assert await one.__anext__() == await two.__anext__() == 1
        (socket,) = transport(client)._sockets
        socket._wire._connection.transport.abort()
        for stream in (one, two):
            assert await client.cancel(stream.task_id) == "cancelled"
            with pytest.raises(CallCancelled):
                await stream.__anext__()
    assert await client.run("echo", text="a") == {"text": "a"}  # on a new socket


async def test_a_dropped_socket_truncates_its_streams_and_they_can_be_resumed(url: str) -> None:
    async with AsyncClient(url, retry=ONCE) as client:
        async with client.stream("wait", task_id="one", on_disconnect="continue") as stream:
            assert await stream.__anext__() == 1
            (socket,) = transport(client)._sockets
            socket._wire._connection.transport.abort()
            for _ in range(2):
                with pytest.raises(StreamTruncated, match="broke within the stream"):
                    await stream.__anext__()
        async with client.resume("one", after=stream.last_seq) as rest:
            await client.cancel("one")
            with pytest.raises(CallCancelled):
                await rest.__anext__()


async def test_a_stream_whose_items_may_be_lost_is_not_read_on(client: AsyncClient) -> None:
    stream = client.stream("upper", words=["a"], more_input=True, on_disconnect={"grace_s": 5})
    async with stream:
        assert await stream.__anext__() == "A"
        (socket,) = transport(client)._sockets
        socket._wire._connection.transport.abort()
        with pytest.raises(StreamTruncated):
            await stream.__anext__()
    await client.cancel(stream.task_id)


async def test_a_dropped_socket_fails_what_waits_for_an_answer(client: AsyncClient) -> None:
    async def drop() -> None:
        while not await client.tasks():
            await anyio.lowlevel.checkpoint()
        (socket,) = transport(client)._sockets
        socket._wire._connection.transport.abort()

    async with anyio.create_task_group() as group:
        group.start_soon(drop)
        with pytest.raises(ConnectionFailed, match="try again"):
            await client.run("wait")


async def test_closing_the_client_ends_its_streams(url: str, app: App) -> None:
    client = AsyncClient(url)
    async with client.stream("wait", task_id="mine") as stream:
        await stream.__anext__()
        await client.aclose()
        with anyio.fail_after(WAIT_S), pytest.raises(StreamTruncated):
            await stream.__anext__()
    live = app.find("mine", LOCAL)
    with anyio.fail_after(WAIT_S):
        while live.ending is None:
            await anyio.lowlevel.checkpoint()


async def test_nobody_listens() -> None:
    async with AsyncClient("ws://127.0.0.1:9", retry=QUICK) as client:
        for ask in (client.run("echo"), client.resume("mine").__aenter__(), client.cancel("mine")):
            with pytest.raises(ConnectionFailed, match="penstock run"):
                await ask


async def test_another_path_is_refused(url: str) -> None:
    async with AsyncClient(f"{url}/other") as client:
        with pytest.raises(CallError, match="no WebSocket at this path") as caught:
            await client.run("echo")
        assert caught.value.code is ErrorCode.PERMISSION_DENIED


async def test_a_message_no_server_takes_is_not_sent(client: AsyncClient) -> None:
    async with client.stream("wait") as stream:
        with pytest.raises(CallError) as caught:
            await client.run("echo", text="x" * 17_000_000)
        assert caught.value.code is ErrorCode.TOO_LARGE
        assert await stream.__anext__() == 1


# -- servers that break the rules --------------------------------------------------------------------

Script = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[AsyncClient]:
    """A client of a server that answers each message as told."""

    async def answer(connection: ServerConnection) -> None:
        async for text in connection:
            await script(connection, json.loads(text))

    async with serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"ws://127.0.0.1:{port}", max_frame=10_000, retry=ONCE) as client:
            with anyio.fail_after(WAIT_S):
                yield client


def frame(status: str, seq: int | None, name: str, **fields: Any) -> str:
    whole = {"type": "task", "status": status, **fields, "timestamp": 1.0, "task_id": name, "seq": seq}
    return json.dumps({key: value for key, value in whole.items() if value is not None})


ITEMS = [("accepted", 0), ("streaming", 1), ("completed", 2)]


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (ITEMS, None),
        ([("accepted", 0), ("queued", 1), ("a later status", 2), ("completed", 3)], None),
        ([("accepted", 0), ("streaming", 2)], RemoteProtocolError),
        ([("streaming", 0)], RemoteProtocolError),
        ([("accepted", 0), ("accepted", 1)], RemoteProtocolError),
        ([("accepted", 0), None], StreamTruncated),
        ([None], ConnectionFailed),
        ([("accepted", 0), "[]"], StreamTruncated),
        ([("accepted", 0), '{"type":"task"}'], StreamTruncated),
        ([("accepted", 0), '{"type":"greeting"}', '{"type":"pong","timestamp":1}', *ITEMS[1:]], None),
        ([("accepted", 0), "x" * 10_001], StreamTruncated),
        ([("accepted", 0), '{"type":"task","status":"error","error":"of nobody"}', *ITEMS[1:]], None),
    ],
)
async def test_what_a_server_may_not_say(frames: list[Any], error: type[Exception] | None) -> None:
    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        for each in frames if message["type"] == "command" else ():
            if each is None:
                await connection.close(1012, "gone")
            elif isinstance(each, str):
                await connection.send(each)
            else:
                await connection.send(frame(*each, message["task_id"]))

    async with scripted(script) as client:
        raised = None
        try:
            async with client.stream("any") as stream:
                async for _ in stream:
                    pass
        except PenstockError as caught:
            raised = caught
        assert type(raised) is (error or type(None)), raised


async def test_a_cancel_that_came_too_late_says_so() -> None:
    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        if message["type"] == "command":
            await connection.send(frame("accepted", 0, message["task_id"]))
        elif message["type"] == "cancel":
            await connection.send(frame("completed", 1, message["task_id"]))

    async with scripted(script) as client, client.stream("any") as stream:
        assert await stream.cancel() == "already_finished"
        assert [item async for item in stream] == []


async def test_a_move_that_fails_truncates_the_stream_behind_what_came() -> None:
    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        if message["type"] == "resume":
            await connection.close()
        elif message["type"] == "command":
            await connection.send(frame("accepted", 0, message["task_id"]))
            for seq in range(1, 300):
                await connection.send(frame("streaming", seq, message["task_id"], data="x" * 9000))

    async with scripted(script) as client, client.stream("any") as stream:
        reply: Any = stream._reply
        while reply._moving is None or not reply._moving.done():
            await anyio.lowlevel.checkpoint()
        with pytest.raises(StreamTruncated):
            async for _ in stream:
                pass
        assert stream.last_seq * 9000 > MAX_WAITING
