"""A cancel reaches the SGLang server: once, in time, and nobody else's work."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager

import anyio
import pytest

from engines.upstreams.asking import chatting, prompting, reading, said, until, whole
from engines.upstreams.sglang import SGLangServer
from penstock import AsyncClient
from penstock.calls import ambient
from penstock.compose import build_app
from penstock.engines import sglang, sglang_sending
from penstock.engines.sglang import SGLangEngine, open_sglang
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEvent, EngineReport, EngineRequest, EngineStart
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio

ROUTES = pytest.mark.parametrize("asked", [prompting, chatting])
Asked = Callable[..., EngineRequest]


class Call:
    """The call around a generation."""

    def __init__(self) -> None:
        self.request_id = uuid.uuid4().hex
        self.confirmed = 0

    metadata: Mapping[str, str] = {}

    def remaining(self) -> float | None:
        return None

    def report(self, report: EngineReport) -> None:
        """Nobody asks."""

    def upstream_confirmed(self) -> None:
        self.confirmed += 1


@contextmanager
def within_a_call() -> Iterator[Call]:
    """What happens in here happens in a call."""
    call = Call()
    token = ambient.current.set(call)
    try:
        yield call
    finally:
        ambient.current.reset(token)


@pytest.fixture
async def server() -> AsyncIterator[SGLangServer]:
    played = SGLangServer()
    async with played.running():
        yield played


@pytest.fixture
async def engine(server: SGLangServer) -> AsyncIterator[SGLangEngine]:
    opened = open_sglang(server.url, connect_s=2, first_token_s=5, gap_s=5, close_s=1)
    yield opened
    await opened.aclose()


async def nothing_is_left(server: SGLangServer, engine: SGLangEngine) -> None:
    """No work, no useless abort, no task, no connection in use; and the next call is clean."""
    await until(lambda: not server.live)
    assert server.useless == []
    assert not len(engine.tasks)
    server.gate.open()
    assert said(await whole(engine, prompting("next", max_tokens=2))) == "next#0 next#1 "


@ROUTES
@pytest.mark.parametrize("forgets", [False, True])
async def test_a_cancel_while_it_waits_aborts_once_and_then_leaves(
    server: SGLangServer, engine: SGLangEngine, asked: Asked, forgets: bool
) -> None:
    server.loses_rid_on_disconnect = forgets
    server.gate.hold(after=2)
    seen: list[EngineEvent] = []
    request = asked()
    with within_a_call() as call:
        async with reading(engine, request, seen) as scope:
            await until(lambda: len(seen) == 3)
            scope.cancel()
    assert server.aborts == [request.request_id]
    assert not server.live
    assert call.confirmed >= 1
    used = server.seen[0].connection
    await until(used.lost.is_set)
    await nothing_is_left(server, engine)


@ROUTES
@pytest.mark.parametrize("wanted", [EngineStart, EngineDelta])
async def test_closing_between_two_tokens_aborts_as_well(
    server: SGLangServer, engine: SGLangEngine, asked: Asked, wanted: type[EngineEvent]
) -> None:
    server.gate.hold(after=1)
    request = asked()
    async with aclosing(engine.generate(request)) as events:
        async for event in events:
            if isinstance(event, wanted):
                break
    assert server.aborts == [request.request_id]
    await until(server.seen[0].connection.lost.is_set)
    await nothing_is_left(server, engine)


@ROUTES
async def test_a_cancel_before_the_answer_begins_waits_for_the_server_to_know(
    server: SGLangServer, engine: SGLangEngine, asked: Asked
) -> None:
    server.headers_gate.clear()
    server.gate.hold(after=0)
    request = asked()
    async with reading(engine, request) as scope:
        await until(lambda: len(server.seen) == 1)
        scope.cancel()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert server.aborts == []
        server.headers_gate.set()
    assert server.aborts == [request.request_id]
    await nothing_is_left(server, engine)


async def test_an_abort_that_came_too_early_is_said_again(server: SGLangServer, engine: SGLangEngine) -> None:
    server.known_gate.clear()
    server.gate.hold(after=0)
    request = prompting()
    async with reading(engine, request) as scope:
        await until(lambda: len(server.seen) == 1)
        scope.cancel()
        await until(lambda: len(server.useless) == 1)
        server.known_gate.set()
    assert server.aborts == [request.request_id] * 2
    server.useless.clear()
    await nothing_is_left(server, engine)


async def test_a_cancel_before_it_was_sent_asks_nothing(server: SGLangServer, engine: SGLangEngine) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        async for _ in engine.generate(prompting()):
            raise AssertionError("it was cancelled")
    await engine.generate(prompting()).aclose()
    assert server.seen_at("/generate") == server.seen_at("/abort_request") == []
    await nothing_is_left(server, engine)


async def test_an_answer_that_came_to_its_end_is_never_aborted(
    server: SGLangServer, engine: SGLangEngine
) -> None:
    server.length = 3
    for request in (prompting(), chatting()):
        async with aclosing(engine.generate(request)) as events:
            seen = [event async for event in events]
        assert said(seen) == "fox#0 fox#1 fox#2 "
    # Left before its last events are taken, though they have arrived.
    async with aclosing(engine.generate(prompting("left"))) as events:
        await anext(events)
        await until(lambda: not server.live)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
    assert server.aborts == []
    await nothing_is_left(server, engine)


async def test_a_late_abort_does_not_hit_who_uses_the_id_again(
    server: SGLangServer, engine: SGLangEngine
) -> None:
    server.gate.hold(after=1)
    server.abort_gate.clear()
    request = prompting("first")
    seen: list[EngineEvent] = []
    same = prompting("second", request_id=request.request_id)
    async with reading(engine, request) as first, reading(engine, same, seen) as second:
        await until(lambda: len(server.live) == 2)
        first.cancel()
        await until(lambda: len(server.aborts) == 1)
        server.abort_gate.set()
        await until(lambda: len(server.live) == 1)
        server.gate.hold(after=4)
        await until(lambda: len(seen) == 5)
        second.cancel()
    assert said(seen).startswith("second#0 second#1 second#2 ")
    assert len(set(server.aborts)) == 2
    await nothing_is_left(server, engine)


@pytest.mark.parametrize("way", ["500", "drop", "hang"])
async def test_an_abort_that_fails_is_bounded_and_harms_nobody(
    server: SGLangServer, engine: SGLangEngine, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    server.gate.hold(after=1)
    server.stops_on_disconnect = True
    if way == "hang":
        server.abort_gate.clear()
    else:
        server.abort_status = {"500": 500, "drop": 0}[way]
    seen: list[EngineEvent] = []
    with anyio.fail_after(2.5), within_a_call() as call:
        async with reading(engine, prompting(), seen) as scope:
            await until(lambda: len(seen) == 2)
            scope.cancel()
    assert len(server.aborts) == 1
    assert call.confirmed == 0
    assert way == "hang" or "could not be aborted" in caplog.text
    server.abort_gate.set()
    server.useless.clear()
    await nothing_is_left(server, engine)


async def test_a_server_that_works_on_is_left_in_time_and_told_of(
    server: SGLangServer, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_sglang(server.url, close_s=3)
    server.gate.hold(after=1)
    server.ignores_aborts = True
    async with engine:
        seen: list[EngineEvent] = []
        async with reading(engine, prompting(), seen) as scope:
            await until(lambda: len(seen) == 2)
            scope.cancel()
        assert "was aborted, and goes on" in caplog.text
        assert len(server.aborts) == 2
        await until(server.seen[0].connection.lost.is_set)


async def test_a_cancelled_connection_is_not_used_again(server: SGLangServer, engine: SGLangEngine) -> None:
    server.gate.hold(after=1)
    for number in range(20):
        seen: list[EngineEvent] = []
        async with reading(engine, prompting(f"p{number}"), seen) as scope:
            await until(lambda: len(seen) == 2)  # noqa: B023 - awaited within its turn
            scope.cancel()
        assert said(seen) == f"p{number}#0 "
    used = [seen.connection for seen in server.seen_at("/generate")]
    assert len(set(used)) == 20
    await until(lambda: all(connection.lost.is_set() for connection in used))


async def test_closing_the_engine_aborts_what_is_under_way(
    server: SGLangServer, engine: SGLangEngine
) -> None:
    server.gate.hold(after=1)
    seen: list[EngineEvent] = []
    async with reading(engine, prompting(), seen):
        await until(lambda: len(seen) == 2)
        await engine.aclose()
    assert len(server.aborts) == 1
    assert not server.live
    with pytest.raises(CallError) as raised:
        await whole(engine, prompting())
    assert raised.value.code is ErrorCode.UNAVAILABLE


async def test_a_reader_that_does_not_read_bounds_what_is_read_ahead(
    server: SGLangServer, engine: SGLangEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[sglang_sending.Sending] = []

    class Watched(sglang_sending.Sending):
        async def open(self) -> None:
            sent.append(self)
            await super().open()

    monkeypatch.setattr(sglang, "Sending", Watched)
    most = sglang_sending._AHEAD
    server.pieces, server.incremental = [b"x" * 20000] * 150, True
    async with aclosing(engine.generate(prompting())) as events:
        await anext(events)
        await until(lambda: sent[0]._size > most)
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert sent[0]._size < most * 1.2
        assert len([event async for event in events]) > 10
    assert server.aborts == []


@pytest.mark.parametrize("says_last", [True, False])
async def test_the_record_of_the_call_tells_whether_the_server_has_confirmed(
    server: SGLangServer, says_last: bool
) -> None:
    server.gate.hold(after=1)
    server.ignores_aborts = not says_last
    app = build_app(None, f"sglang://127.0.0.1:{server.port}?close_s=1", ServerSettings())
    async with app, AsyncClient(app) as client:
        async with client.stream("predict", {"prompt": "fox"}) as stream:
            await anext(stream)
            await stream.cancel()
        await until(lambda: bool(server.aborts))
        await until(lambda: server.seen[0].connection.lost.is_set())
        task = await client.task(stream.task_id)
    assert task.cancel is not None
    stages = {name for name, told in task.cancel.items() if told is not None}
    assert ("upstream_confirmed_at" in stages) == says_last, task.cancel
