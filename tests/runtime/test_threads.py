"""Blocking author code: off the event loop, bounded, and never forgotten while it runs."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import anyio
import pytest

from penstock.protocol.messages import CancelReason
from penstock.runtime.runtime import Runtime
from penstock.runtime.threads import BATCH, DaemonThreads, ThreadedCall, ThreadedItems
from penstock.testing import FakeClock, Zoo

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    pool = DaemonThreads()
    yield pool
    pool.close()


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-command")}


async def until(holds: Callable[[], bool]) -> None:
    """Return once something another thread does without telling is done."""
    with anyio.fail_after(5):
        while not holds():
            await anyio.lowlevel.checkpoint()


async def drain(items: ThreadedItems, into: list[Any] | None = None) -> list[Any]:
    taken: list[Any] = [] if into is None else into
    with anyio.fail_after(5):
        while batch := await items.take():
            taken += batch
    return taken


# -- the pool ------------------------------------------------------------------------------------------


async def test_a_thread_is_used_again(threads: DaemonThreads) -> None:
    seen = set()
    for _ in range(20):
        call = ThreadedCall(threads, copy_context(), threading.get_ident)
        seen.add(await call.result())
        await until(lambda: threads._idle == 1)  # a moment after its result is there
    assert len(seen) == 1


async def test_calls_that_block_each_have_their_own_thread(threads: DaemonThreads) -> None:
    all_here = threading.Barrier(20, timeout=5)
    calls = [ThreadedCall(threads, copy_context(), all_here.wait) for _ in range(20)]
    assert sorted([await call.result() for call in calls]) == list(range(20))


async def test_an_idle_thread_does_not_keep_the_last_calls_data(threads: DaemonThreads) -> None:
    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)
    call = ThreadedCall(threads, copy_context(), lambda kept=large: id(kept))
    await call.result()
    del large, call
    await until(lambda: gc.collect() >= 0 and gone() is None)


async def test_a_closed_pool_leaves_no_thread_not_even_a_busy_one() -> None:
    pool = DaemonThreads()
    before = names()
    gate = threading.Event()
    busy = ThreadedCall(pool, copy_context(), lambda: gate.wait(5))
    await ThreadedCall(pool, copy_context(), lambda: None).result()
    pool.close()
    gate.set()
    await busy.result()
    await until(lambda: not names() - before)


# -- one call ------------------------------------------------------------------------------------------


async def test_an_exception_is_told_once(threads: DaemonThreads) -> None:
    call = ThreadedCall(threads, copy_context(), lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await call.result()
    assert await call.result() is None


async def test_a_cancelled_wait_goes_on_until_the_thread_has_stopped(threads: DaemonThreads) -> None:
    gate, stopped = threading.Event(), []
    call = ThreadedCall(threads, copy_context(), lambda: (gate.wait(5), stopped.append(True)))
    waiting = asyncio.get_running_loop().create_task(call.result())
    for _ in range(3):
        await anyio.wait_all_tasks_blocked()
        waiting.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not waiting.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError), anyio.fail_after(5):
        await waiting
    assert stopped == [True]


async def test_waiting_for_a_thread_that_never_stops_can_be_given_up(threads: DaemonThreads) -> None:
    gate = threading.Event()
    call = ThreadedCall(threads, copy_context(), lambda: gate.wait(5))
    waiting = asyncio.get_running_loop().create_task(call.result())
    await anyio.wait_all_tasks_blocked()
    threads.abandon()
    with pytest.raises(asyncio.CancelledError), anyio.fail_after(5):
        await waiting
    gate.set()


# -- items ---------------------------------------------------------------------------------------------


async def test_items_come_in_order_and_then_the_error(threads: DaemonThreads) -> None:
    def make() -> Iterator[int]:
        yield from range(500)
        raise KeyError("end")

    items = ThreadedItems(threads, copy_context(), make)
    taken: list[int] = []
    with pytest.raises(KeyError):
        await drain(items, taken)
    assert taken == list(range(500))
    await items.aclose()


async def test_a_generator_runs_only_so_far_ahead(threads: DaemonThreads) -> None:
    made = 0
    first = threading.Event()

    def make() -> Iterator[int]:
        nonlocal made
        for made in range(1, 10_000):
            if made == BATCH:
                first.set()
            yield made

    items = ThreadedItems(threads, copy_context(), make)
    await asyncio.to_thread(first.wait, 5)
    await anyio.wait_all_tasks_blocked()
    assert made == BATCH
    assert await items.take() == list(range(1, BATCH + 1))
    with anyio.fail_after(5):
        await items.aclose()
    assert made <= 2 * BATCH


async def test_closing_closes_the_generator_in_its_own_thread(threads: DaemonThreads) -> None:
    closed_in: list[int] = []
    ran_in: list[int] = []

    def make() -> Iterator[int]:
        ran_in.append(threading.get_ident())
        try:
            while True:
                yield 1
        finally:
            closed_in.append(threading.get_ident())

    items = ThreadedItems(threads, copy_context(), make)
    await items.take()
    with anyio.fail_after(5):
        await items.aclose()
    assert closed_in == ran_in != [threading.get_ident()]


async def test_an_error_while_closing_is_told(threads: DaemonThreads) -> None:
    def make() -> Iterator[int]:
        try:
            yield from range(10_000)
        finally:
            raise OSError("could not close")

    items = ThreadedItems(threads, copy_context(), make)
    await items.take()
    with pytest.raises(OSError, match="could not close"), anyio.fail_after(5):
        await items.aclose()


async def test_every_item_is_taken_whatever_the_pace(threads: DaemonThreads) -> None:
    def make() -> Iterator[int]:
        for i in range(300):
            if i % 50 == 0:
                time.sleep(0.001)  # the thread falls behind the loop now and then
            yield i

    for _ in range(5):
        assert await drain(ThreadedItems(threads, copy_context(), make)) == list(range(300))


# -- commands ------------------------------------------------------------------------------------------


async def test_a_blocking_command_does_not_hold_the_loop(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        blocked = await served.open("block")
        with anyio.fail_after(5):
            await zoo.journal.wait("started", blocked.request_id)
        assert await served.answer("echo", value=1) == 1
        assert blocked.ending is None
        zoo.release()
        assert (await served.frames(blocked))[-1].status == "completed"


async def test_a_blocking_generator_does_not_hold_the_loop(serve: Any) -> None:
    gate = threading.Event()
    rt = Runtime()

    @rt.streaming_command("predict")
    def predict() -> Iterator[int]:
        yield 1
        gate.wait(5)
        yield 2

    async with serve(rt) as served:
        live = await served.open()
        async with live.reader() as reader:
            with anyio.fail_after(5):
                while live.log.next_seq < 2:  # the first item is there while the generator blocks
                    await reader.__anext__()
            gate.set()
            frames = await served.frames(live)
        assert [f.data for f in frames[1:-1]] == [1, 2]


async def test_a_cancelled_generator_is_closed_at_its_next_yield(serve: Any) -> None:
    inside, gate, events = threading.Event(), threading.Event(), []
    rt = Runtime()

    @rt.streaming_command("predict")
    def predict() -> Iterator[int]:
        try:
            yield 1
            inside.set()
            gate.wait(5)
            events.append("went on")
            yield 2
            events.append("never")
        finally:
            events.append("closed")

    async with serve(rt) as served:
        live = await served.open()
        with anyio.fail_after(5):
            async with live.reader() as reader:
                while live.log.next_seq < 2:
                    await reader.__anext__()
                await until(inside.is_set)
                live.cancel(CancelReason.CALLER)
                await anyio.wait_all_tasks_blocked()
                assert served.permits == 1  # the work has not stopped yet
                gate.set()
                frames = await served.frames(live)
        await served.settled()
        assert events == ["went on", "closed"]
        assert [f.status for f in frames] == ["accepted", "streaming", "cancelled"]
        assert served.permits == 0


@pytest.mark.parametrize("command", ["block", "spin"])
async def test_a_permit_is_kept_until_the_thread_has_stopped(serve: Any, zoo: Zoo, command: str) -> None:
    clock = FakeClock()
    async with serve(zoo.runtime, clock=clock, cancel_grace_s=1.0) as served:
        live = await served.open(command)
        with anyio.fail_after(5):
            await zoo.journal.wait("started", live.request_id)
            live.cancel(CancelReason.CALLER)
            clock.advance(2)
            assert (await served.frames(live))[-1].status == "cancelled"
        assert live.stuck
        assert served.permits == 1
        assert (await served.app.health()).checks == {"stuck": "1"}
        zoo.release()
        await served.settled()
        assert served.permits == 0
        assert not live.stuck


def test_a_thread_that_never_stops_does_not_keep_the_process(zoo: Zoo) -> None:
    """`asyncio.run` waits for its tasks: none of ours may wait for a thread that hangs."""
    from penstock.calls.limits import CallLimits
    from penstock.protocol.dispatch import LOCAL
    from penstock.protocol.messages import Start
    from penstock.runtime.app import App

    async def serve_and_stop() -> None:
        async with App(zoo.runtime, limits=CallLimits(cancel_grace_s=0.05)) as app:
            live = await app.open(Start(command="block"), LOCAL)
            await zoo.journal.wait("started", live.request_id)

    ended = threading.Event()

    def run() -> None:
        asyncio.run(serve_and_stop())
        ended.set()

    runner = threading.Thread(target=run, daemon=True)
    runner.start()
    assert ended.wait(5)
    assert zoo.journal.count("finished") == 0
    zoo.release()
    runner.join(5)
