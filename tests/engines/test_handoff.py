"""Items cross from a thread to the loop: all of them, in order, in batches, and never too many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest

from penstock.calls.tasks import TaskOwner
from penstock.engines.handoff import Handoff

pytestmark = pytest.mark.anyio


@contextmanager
def thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    running = threading.Thread(target=work)
    running.start()
    yield running
    running.join(5)
    assert not running.is_alive()


async def everything(handoff: Handoff[int]) -> list[list[int]]:
    batches = []
    with anyio.fail_after(5):
        while batch := await handoff.take():
            batches.append(batch)
    return batches


async def test_everything_arrives_in_order() -> None:
    handoff: Handoff[int] = Handoff(asyncio.get_running_loop(), limit=3)

    def work() -> None:
        for number in range(1000):
            handoff.put(number)
        handoff.finish()

    with thread(work):
        batches = await everything(handoff)
    assert [number for batch in batches for number in batch] == list(range(1000))
    assert max(map(len, batches)) <= 3


async def test_what_is_ready_together_costs_one_wake_up() -> None:
    loop = asyncio.get_running_loop()
    wakes = 0
    threadsafe = loop.call_soon_threadsafe

    def counting(*args: object, **kwargs: object) -> asyncio.Handle:
        nonlocal wakes
        wakes += 1
        return threadsafe(*args, **kwargs)  # type: ignore[arg-type]

    handoff: Handoff[int] = Handoff(loop)
    loop.call_soon_threadsafe = counting  # type: ignore[method-assign,assignment]
    try:
        for number in range(100):
            handoff.put(number)
        assert await handoff.take() == list(range(100))
    finally:
        del loop.call_soon_threadsafe  # type: ignore[method-assign]
    assert wakes == 1


async def test_a_thread_ahead_waits_and_closing_lets_it_go() -> None:
    handoff: Handoff[int] = Handoff(asyncio.get_running_loop(), limit=2)
    answers: list[bool] = []
    two_in = threading.Event()

    def work() -> None:
        for number in range(3):
            if number == 2:
                two_in.set()
            answers.append(handoff.put(number))

    with thread(work) as running:
        assert await asyncio.to_thread(two_in.wait, 5)
        assert answers == [True, True]
        assert running.is_alive()
        handoff.close()
    assert answers == [True, True, False]


async def test_unbound_lets_a_waiting_thread_finish_without_loss() -> None:
    handoff: Handoff[int] = Handoff(asyncio.get_running_loop(), limit=1)

    def work() -> None:
        for number in range(5):
            handoff.put(number)
        handoff.finish()

    with thread(work):
        handoff.unbound()
    assert [number for batch in await everything(handoff) for number in batch] == [0, 1, 2, 3, 4]


async def test_finished_waits_for_the_work_even_when_nobody_reads() -> None:
    handoff: Handoff[int] = Handoff(asyncio.get_running_loop())
    go = threading.Event()

    def work() -> None:
        go.wait(5)
        handoff.finish()

    owner = TaskOwner()
    handoff.close()
    with thread(work):
        waiting = owner.start(handoff.finished(), awaited=True)
        for _ in range(3):  # a shield holds back none but the first
            await anyio.wait_all_tasks_blocked()
            waiting.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not waiting.done()
        go.set()
        with anyio.fail_after(5):
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await handoff.finished()
            await handoff.finished()


def test_a_closed_loop_means_nobody_reads() -> None:
    loop = asyncio.new_event_loop()
    handoff: Handoff[int] = Handoff(loop)
    loop.close()
    assert handoff.put(1) is False
    handoff.finish()
