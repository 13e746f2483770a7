"""get_request_id() is right wherever author code goes (P11)."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing.pool
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from penstock.errors import PenstockError
from penstock.runtime import carry
from penstock.runtime.context import current_call, get_request_id
from penstock.runtime.runtime import Runtime
from penstock.runtime.threads import DaemonThreads, ThreadedCall

pytestmark = pytest.mark.anyio
Ask = Callable[[], str | None]


def in_thread(ask: Ask) -> str | None:
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.append(ask()))
    thread.start()
    thread.join(5)
    return seen[0]


class Subclass(threading.Thread):
    """A thread with a run of its own."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask
        self.seen: str | None = None

    def run(self) -> None:
        self.seen = self.ask()


def in_subclass(ask: Ask) -> str | None:
    thread = Subclass(ask)
    thread.start()
    thread.join(5)
    return thread.seen


def in_timer(ask: Ask) -> str | None:
    seen: list[str | None] = []
    timer = threading.Timer(0, lambda: seen.append(ask()))
    timer.start()
    timer.join(5)
    return seen[0]


def in_nested(ask: Ask) -> str | None:
    return in_thread(lambda: in_subclass(lambda: in_pool(ask)))


def in_pool(ask: Ask) -> str | None:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result(5)


def in_map(ask: Ask) -> str | None:
    with ThreadPoolExecutor(2) as pool:
        (seen,) = set(pool.map(lambda _: ask(), range(5)))
        return seen


def in_thread_pool(ask: Ask) -> str | None:
    with multiprocessing.pool.ThreadPool(1) as pool:
        return pool.apply(ask)


WAYS = [in_thread, in_subclass, in_timer, in_nested, in_pool, in_map, in_thread_pool]


@pytest.mark.parametrize("way", WAYS)
async def test_in_whatever_thread_author_code_starts(serve: Any, way: Callable[[Ask], str | None]) -> None:
    rt = Runtime()

    @rt.command("sync")
    def sync() -> str | None:
        return way(get_request_id)

    @rt.command("async")
    async def asynchronous() -> str | None:
        return way(get_request_id)

    @rt.streaming_command("gen")
    def generator() -> Iterator[str | None]:
        yield way(get_request_id)

    async with serve(rt) as served:
        for name in ("sync", "async", "gen"):
            live = await served.open(name, stream=False)
            assert (await served.frames(live))[-1].data == live.request_id
    assert get_request_id() is None
    assert way(get_request_id) is None


async def test_in_child_tasks_to_thread_and_the_loops_executor(serve: Any) -> None:
    rt = Runtime()

    @rt.streaming_command("predict")
    async def predict() -> AsyncIterator[list[str | None]]:
        loop = asyncio.get_running_loop()

        async def child() -> str | None:
            await asyncio.sleep(0)
            return get_request_id()

        with ThreadPoolExecutor(1) as pool:
            yield [
                get_request_id(),
                current_call().request_id,
                *await asyncio.gather(child(), child()),
                await asyncio.to_thread(get_request_id),
                await loop.run_in_executor(None, get_request_id),
                await loop.run_in_executor(pool, get_request_id),
            ]

    async with serve(rt) as served:
        live = await served.open()
        frames = await served.frames(live)
    assert set(frames[1].data) == {live.request_id}


async def test_a_pool_that_lives_longer_serves_each_call_as_itself(serve: Any) -> None:
    rt = Runtime()

    with ThreadPoolExecutor(1) as pool:

        @rt.command("predict")
        def predict() -> str | None:
            return pool.submit(get_request_id).result(5)

        async with serve(rt) as served:
            for _ in range(5):
                live = await served.open(stream=False)
                assert (await served.frames(live))[-1].data == live.request_id
            assert await asyncio.to_thread(lambda: pool.submit(get_request_id).result(5)) is None


async def test_two_hundred_at_once(serve: Any) -> None:
    rt = Runtime()
    pool = ThreadPoolExecutor(8)
    everybody = 100
    arrived = asyncio.Event()
    inside = 0

    async def ask_everywhere() -> list[str | None]:
        loop = asyncio.get_running_loop()
        seen = [get_request_id(), await loop.run_in_executor(pool, get_request_id)]
        return [*seen, await asyncio.to_thread(in_thread, get_request_id)]

    @rt.command("async", concurrency=everybody)
    async def asynchronous() -> list[str | None]:
        nonlocal inside
        inside += 1
        if inside == everybody:
            arrived.set()
        await arrived.wait()
        return await ask_everywhere()

    @rt.streaming_command("sync", concurrency=everybody)
    def sync() -> Iterator[list[str | None]]:
        for _ in range(3):
            yield [get_request_id(), pool.submit(get_request_id).result(5)]

    async with serve(rt) as served:
        lives = [await served.open(name) for name in ("async", "sync") for _ in range(everybody)]
        for live in lives:
            frames = await served.frames(live)
            seen = {i for f in frames if isinstance(f.data, list) for i in f.data}
            assert seen == {live.request_id}
    pool.shutdown()


async def test_an_argument_named_like_ours_still_reaches_the_function() -> None:
    carry.install()
    with ThreadPoolExecutor(1) as pool:
        future: Future[dict[str, int]] = pool.submit(lambda **given: given, call=1, function=2, pool=3)
        assert future.result(5) == {"call": 1, "function": 2, "pool": 3}


def test_outside_there_is_no_call() -> None:
    assert get_request_id() is None
    with pytest.raises(PenstockError, match="inside a running command"):
        current_call()


async def test_installing_twice_wraps_once() -> None:
    carry.install()
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    carry.install()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == (start, submit)


async def test_our_own_threads_carry_no_call_between_calls() -> None:
    threads = DaemonThreads()
    with anyio.fail_after(5):
        assert await ThreadedCall(threads, contextvars.Context(), get_request_id).result() is None
    threads.close()
