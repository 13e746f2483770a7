"""Cancels and closings over a real connection: the server sees them, and no connection serves two calls."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from engines.upstream.raw import END, STREAM, RawServer, Seen, event
from engines.upstream.talk import DONE, GOOD, call, end_of, good, hangs, piece, request, run, served
from penstock.engines.openai import OpenAIEngine, open_openai
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineStart

pytestmark = pytest.mark.anyio

TOKEN = event(piece("one "))


def pools(engine: OpenAIEngine) -> list[Any]:
    """The connections an engine holds, as its clients see them."""
    return [
        connection
        for lane, _ in engine.upstream._lanes._lanes.values()
        for connection in lane.http._transport._pool.connections
    ]


async def until(events: AsyncGenerator[EngineEvent, None], wanted: type[EngineEvent]) -> None:
    async for told in events:
        if type(told) is wanted:
            return
    raise AssertionError(f"no {wanted.__name__} came")


async def test_connections_of_whole_answers_are_used_again() -> None:
    async with served() as (server, engine):
        for _ in range(5):
            await end_of(engine)
    assert [seen.number for seen in server.seen] == [0] * 5


@pytest.mark.parametrize("wanted", [EngineStart, EngineDelta])
async def test_leaving_an_answer_closes_its_connection_before_aclose_returns(
    wanted: type[EngineEvent],
) -> None:
    async with served(hangs(STREAM, TOKEN)) as (server, engine):
        with anyio.fail_after(5), call() as around:
            async with aclosing(engine.generate(request())) as events:
                await until(events, wanted)
                assert around.confirmed == 0
            assert around.confirmed == 1
            assert pools(engine) == []
            await server.seen[0].gone.wait()
        server.answer = good
        assert (await end_of(engine)).finish_reason == "stop"
    assert [seen.number for seen in server.seen] == [0, 1]


async def test_an_answer_that_has_come_whole_but_was_not_read_is_not_used_again() -> None:
    # Everything is in our buffers already: only the reader knows that the rest belongs to somebody else.
    async with served() as (server, engine):
        for _ in range(3):
            async with aclosing(engine.generate(request())) as events:
                await until(events, EngineDelta)
            assert pools(engine) == []
        assert (await end_of(engine)).output_text == "one two"
    assert [seen.number for seen in server.seen] == [0, 1, 2, 3]


@pytest.mark.parametrize("parts", [(), (STREAM,), (STREAM, event(piece(role="assistant"))), (STREAM, TOKEN)])
@pytest.mark.parametrize("scoped", [False, True])
async def test_a_cancel_reaches_the_server_wherever_the_call_is(
    parts: tuple[bytes, ...], scoped: bool
) -> None:
    scope = anyio.CancelScope()

    async def asked() -> None:
        with scope:
            await run(engine)

    async with served(hangs(*parts)) as (server, engine):
        with anyio.fail_after(5), call() as around:
            task = server.tasks.start(asked(), awaited=True)
            await server.arrived(1)
            await anyio.wait_all_tasks_blocked()
            if scoped:
                scope.cancel()
                await task
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert around.confirmed == 1
            assert pools(engine) == []
            await server.seen[0].gone.wait()
        server.answer = good
        assert (await end_of(engine)).finish_reason == "stop"


async def test_calls_that_are_cancelled_anywhere_never_touch_others() -> None:
    rng = random.Random(5)

    async def answer(seen: Seen) -> None:
        number = seen.body["messages"][0]["content"]
        await seen.send(STREAM)
        for _ in range(6):
            await seen.send(event(piece(f"{number} ", id=f"chatcmpl-{number}")))
            await asyncio.sleep(0)
        await seen.send(event(piece(None, "stop", id=f"chatcmpl-{number}")), DONE, END)

    whole: set[str] = set()

    async def one(engine: OpenAIEngine, number: str, steps: int) -> None:
        asked = request(messages=({"role": "user", "content": number},))
        async with aclosing(engine.generate(asked)) as events:
            async for told in events:
                if type(told) is EngineDelta:
                    assert told.chunk == f"{number} "
                elif type(told) is EngineEnd:
                    assert (told.output_text, told.finish_reason) == (f"{number} " * 6, "stop")
                    whole.add(number)
                steps -= 1
                if steps == 0:
                    return

    async with served(answer, capacity=8) as (server, engine):
        with anyio.fail_after(60):
            for round_ in range(40):
                async with anyio.create_task_group() as tasks:
                    for place in range(10):
                        steps = rng.choice((1, 2, 4, 7, 100, 100))
                        tasks.start_soon(one, engine, f"{round_}-{place}", steps)
                    if round_ % 4 == 3:
                        # Some are cancelled while they open, wait or read.
                        await asyncio.sleep(rng.random() / 100)
                        tasks.cancel_scope.cancel()
        used: dict[int, list[str]] = {}
        for seen in server.seen:
            used.setdefault(seen.number, []).append(seen.body["messages"][0]["content"])
        # After a call that was left, nothing else came on its connection.
        for numbers in used.values():
            assert set(numbers[:-1]) <= whole
        assert len(whole) > 80
        assert all(connection.is_idle() for connection in pools(engine))
        assert not engine.upstream._live
        assert (await end_of(engine)).finish_reason == "stop"


async def test_more_calls_than_fit_wait_for_their_turn() -> None:
    gate = asyncio.Event()
    most = now = 0

    async def answer(seen: Seen) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await gate.wait()
        now -= 1
        await seen.send(*GOOD)

    async with served(answer, capacity=2) as (server, engine):
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(end_of, engine)
                await server.arrived(2)
                await anyio.wait_all_tasks_blocked()
                gate.set()
    assert len(server.seen) == 6
    assert most == 2


# -- closing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(), (STREAM, TOKEN)])
async def test_closing_ends_calls_that_wait(parts: tuple[bytes, ...]) -> None:
    async with served(hangs(*parts)) as (server, engine):
        told: list[Any] = []

        async def asked() -> None:
            try:
                told.extend(await run(engine))
            except CallError as error:
                told.append(error)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(asked)
                await server.arrived(1)
                await anyio.wait_all_tasks_blocked()
                await engine.aclose()
                assert not engine.upstream._live
        last = told[-1]
        code = last.code.value if isinstance(last, CallError) else last.error.code
        assert code == "unavailable"
        with anyio.fail_after(5):
            await server.seen[0].gone.wait()
        with pytest.raises(CallError, match="is closed") as raised:
            await run(engine)
        assert raised.value.code is ErrorCode.UNAVAILABLE


async def test_closing_hangs_up_on_a_reader_that_is_busy_elsewhere() -> None:
    async with served(hangs(STREAM, TOKEN)) as (server, engine):
        events = engine.generate(request())
        await until(events, EngineDelta)
        with anyio.fail_after(5):
            await engine.aclose()
            await server.seen[0].gone.wait()
        end = await anext(events)
        assert isinstance(end, EngineEnd)
        assert end.error is not None
        assert end.error.code == "unavailable"
        await events.aclose()


async def test_closing_without_waiting_from_inside_the_loop() -> None:
    async with served() as (server, engine):
        await end_of(engine)
        engine.close()
        with anyio.fail_after(5):
            await server.seen[0].gone.wait()
        engine.close()


class Elsewhere:
    """A server on an event loop of its own."""

    def __enter__(self) -> RawServer:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = RawServer(good)
        asyncio.run_coroutine_threadsafe(self._server.__aenter__(), self._loop).result(5)
        return self._server

    def __exit__(self, *raised: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.__aexit__(None, None, None), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def test_it_serves_one_event_loop_after_another_and_leaves_nothing_on_them() -> None:
    with Elsewhere() as server:
        engine = open_openai(server.url, model="m")
        for _ in range(3):
            assert asyncio.run(end_of(engine)).finish_reason == "stop"
            assert engine.upstream._lanes._lanes == {}
        engine.close()
    assert [seen.number for seen in server.seen] == [0, 1, 2]


def test_it_is_closed_from_another_thread_than_the_one_it_served() -> None:
    with Elsewhere() as server:
        engine = open_openai(server.url, model="m")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(end_of(engine), loop).result(10)
        engine.close()
        assert engine.upstream._lanes._lanes == {}
        # A loop that stands still, and is not closed, is closed on as well.
        other = asyncio.new_event_loop()
        engine = open_openai(server.url, model="m")
        other.run_until_complete(end_of(engine))
        engine.close()
        assert engine.upstream._lanes._lanes == {}
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        for one in (loop, other):
            one.run_until_complete(one.shutdown_default_executor())
            one.close()
