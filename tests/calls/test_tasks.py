"""Tasks with an owner: none is lost, none fails in silence, all are gone after it closes."""

from __future__ import annotations

import asyncio
import gc
import logging

import anyio
import pytest

from penstock.calls.tasks import TaskOwner

pytestmark = pytest.mark.anyio


async def forever() -> None:
    await asyncio.Event().wait()


async def test_an_exception_is_logged_and_the_task_let_go(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no")

    tasks = TaskOwner()
    task = tasks.start(fail(), name="doomed")
    assert len(tasks) == 1
    await asyncio.wait((task,))
    await anyio.lowlevel.checkpoint()
    assert len(tasks) == 0
    assert "task doomed failed" in caplog.text


async def test_what_is_awaited_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no")

    tasks = TaskOwner()
    with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match="no"):
        await tasks.start(fail(), awaited=True)
    assert caplog.text == ""


async def test_a_task_nobody_else_holds_is_not_collected() -> None:
    tasks = TaskOwner()
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        done.set()

    tasks.start(work())
    with anyio.fail_after(5):
        await done.wait()


async def test_closing_cancels_and_waits_for_all(caplog: pytest.LogCaptureFixture) -> None:
    tasks = TaskOwner()
    left: list[str] = []

    async def leave_slowly() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            left.append("left")

    for _ in range(3):
        tasks.start(leave_slowly())
    await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(5):
        assert await tasks.aclose() == 0
        assert await tasks.aclose() == 0
    assert left == ["left"] * 3
    assert len(tasks) == 0
    assert caplog.text == ""


async def test_closing_tells_how_many_do_not_end() -> None:
    tasks = TaskOwner()
    gate = asyncio.Event()

    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    tasks.start(stubborn())
    tasks.start(forever())
    await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(5):
        assert await tasks.aclose(0.01) == 1
        gate.set()
        assert await tasks.aclose() == 0


async def test_a_task_may_close_its_own_owner() -> None:
    tasks = TaskOwner()

    async def close() -> int:
        return await tasks.aclose()

    tasks.start(forever())
    with anyio.fail_after(5):
        assert await tasks.start(close()) == 0


async def test_what_must_be_finished_is_however_often_its_waiter_is_cancelled() -> None:
    tasks, go, done = TaskOwner(), asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await go.wait()
        done.set()
        return "done"

    waiting = tasks.start(tasks.finish(work()), awaited=True)
    for _ in range(3):
        await anyio.wait_all_tasks_blocked()
        waiting.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not waiting.done()
    go.set()
    with anyio.fail_after(5), pytest.raises(asyncio.CancelledError):
        await waiting
    assert done.is_set()
    with anyio.fail_after(5):
        assert await tasks.finish(work()) == "done"
    assert len(tasks) == 0


async def test_what_must_be_finished_may_fail() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await TaskOwner().finish(fail())
