"""`get_request_id()`: right wherever author code runs, nothing elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from behaviour.promises import promise
from behaviour.raw_http import WAIT_S
from behaviour.served import Connect
from penstock import PenstockError, Runtime, current_call, get_request_id
from penstock.calls.tasks import TaskOwner

pytestmark = pytest.mark.anyio


def _in_thread(ask: Callable[[], object]) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join(WAIT_S)
    return found[0]


class AtOnce:
    """Lets calls go on once ``n`` of them have arrived."""

    def __init__(self, n: int) -> None:
        self._left = n
        self._all = asyncio.Event()

    async def arrive(self) -> None:
        self._left -= 1
        if not self._left:
            self._all.set()
        await self._all.wait()


@promise("P11")
async def test_the_id_is_right_in_200_calls_at_once(connect: Connect) -> None:
    rt, everyone, pool = Runtime(), AtOnce(200), ThreadPoolExecutor(4)

    async def _child() -> str | None:
        await asyncio.sleep(0)
        return get_request_id()

    @rt.command("ask", concurrency=200)
    async def ask():
        found = [get_request_id(), current_call().request_id]
        await everyone.arrive()
        found.append(get_request_id())
        loop, tasks = asyncio.get_running_loop(), TaskOwner()
        found.append(await tasks.start(_child()))
        found += await asyncio.gather(_child(), _child())
        found.append(await asyncio.to_thread(get_request_id))
        found.append(await loop.run_in_executor(pool, get_request_id))
        found.append(await loop.run_in_executor(pool, _in_thread, get_request_id))
        found.append(pool.submit(get_request_id).result(WAIT_S))
        found.append(_in_thread(lambda: _in_thread(get_request_id)))
        return found

    async with connect(rt) as way:
        assert get_request_id() is None
        with anyio.fail_after(4 * WAIT_S):
            calls = await asyncio.gather(*(way.open("ask") for _ in range(200)))
            answers = await asyncio.gather(*(call.last() for call in calls))
        assert len({call.request_id for call in calls}) == 200
        for call, answer in zip(calls, answers, strict=True):
            assert answer["data"] == [call.request_id] * 11
        # The pool's threads, and this code, are in no call.
        assert {pool.submit(get_request_id).result(WAIT_S) for _ in range(8)} == {None}
        assert get_request_id() is None
        pool.shutdown()


@promise("P11")
async def test_the_id_is_right_in_commands_that_block(connect: Connect) -> None:
    rt, everyone = Runtime(), threading.Barrier(40)

    @rt.command("function", concurrency=20)
    def function():
        before = get_request_id()
        everyone.wait(WAIT_S)
        return [before, get_request_id(), _in_thread(get_request_id)]

    @rt.streaming_command("generator", concurrency=20)
    def generator():
        before = get_request_id()
        everyone.wait(WAIT_S)
        yield "first"
        yield [before, get_request_id(), _in_thread(get_request_id)]

    async with connect(rt) as way:
        for _ in range(2):  # the second time in threads that served other calls
            names = ["function", "generator"] * 20
            calls = await asyncio.gather(*(way.open(name) for name in names))
            await asyncio.gather(*(call.last() for call in calls))
            for call in calls:
                record = await way.record(call.request_id)
                assert record["result"] == [call.request_id] * 3


@promise("P11")
async def test_an_async_generator_keeps_its_id_between_items(connect: Connect) -> None:
    rt, everyone = Runtime(), AtOnce(20)

    @rt.streaming_command("ask")
    async def ask():
        yield get_request_id()
        await everyone.arrive()
        try:
            yield get_request_id()
        finally:
            closed.append(get_request_id())

    closed: list[str | None] = []
    async with connect(rt) as way:
        calls = [await way.open("ask") for _ in range(20)]
        for call in calls:
            await call.last()
            items = [frame for frame in await way.log(call.request_id) if frame["status"] == "streaming"]
            assert [item["data"] for item in items] == [call.request_id] * 2
        assert sorted(closed) == sorted(call.request_id for call in calls)


@promise("P11")
async def test_there_is_no_id_outside() -> None:
    assert get_request_id() is None
    assert _in_thread(get_request_id) is None
    assert await asyncio.to_thread(get_request_id) is None
    with pytest.raises(PenstockError, match="inside a running command"):
        current_call()


@promise("P11")
async def test_the_ids_a_command_sees_are_those_its_caller_has(connect: Connect) -> None:
    rt = Runtime()

    @rt.command("ask")
    async def ask():
        call = current_call()
        return [call.id, call.task_id, call.command]

    async with connect(rt) as way:
        call = await way.open("ask", task_id="my.task:1")
        frame = await call.last()
        assert frame["data"] == [call.request_id, "my.task:1", "ask"]
        assert frame["task_id"] == "my.task:1"
        unnamed = await way.open("ask")
        assert (await unnamed.last())["task_id"] == unnamed.request_id
