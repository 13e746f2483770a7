"""The zoo's animals do what their names say, and the journal tells of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import anyio
import msgspec
import pytest

from penstock.calls.live import Live
from penstock.calls.waiting import wait_ended
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Start, decode_frame
from penstock.runtime.app import App
from penstock.testing import Journal, Zoo, model_zoo

pytestmark = pytest.mark.anyio


@pytest.fixture
async def served() -> AsyncIterator[tuple[Zoo, App]]:
    animals = model_zoo()
    async with App(animals.runtime) as app:
        yield animals, app
        animals.release()


async def opened(app: App, command: str, **given: object) -> Live:
    return await app.open(Start(command=command, input=msgspec.json.encode(given), is_stream=True), LOCAL)


async def ended(live: Live) -> tuple[list[object], str]:
    with anyio.fail_after(5):
        await wait_ended(live)
    frames = [decode_frame(line) for line in live.log.read(-1, 1 << 30)]
    return [f.data for f in frames if f.status == "streaming"], frames[-1].status


async def test_tame_ones_finish(served: tuple[Zoo, App]) -> None:
    animals, app = served
    for command, given, items in (
        ("echo", {"value": {"a": 1}}, []),
        ("ticker", {"n": 2}, [{"tick": 0}, {"tick": 1}]),
        ("flood", {"n": 2, "size": 3}, [{"chunk": "xxx"}] * 2),
    ):
        live = await opened(app, command, **given)
        assert await ended(live) == (items, "completed")
        assert animals.journal.of(live.request_id) == ("started", "finished")


@pytest.mark.parametrize("k", [0, 3])
async def test_raise_at_raises_behind_its_items(served: tuple[Zoo, App], k: int) -> None:
    animals, app = served
    live = await opened(app, "raise_at", k=k)
    assert await ended(live) == ([{"tick": i} for i in range(k)], "error")
    assert animals.journal.of(live.request_id) == ("started", "raised")


@pytest.mark.parametrize("command", ["silent", "flood", "late_yield_after_cancel"])
async def test_endless_ones_end_when_they_are_cancelled(served: tuple[Zoo, App], command: str) -> None:
    animals, app = served
    live = await opened(app, command)
    with anyio.fail_after(5):
        await animals.journal.wait("started", live.request_id)
        live.cancel(CancelReason.CALLER)
        assert (await ended(live))[1] == "cancelled"
        await animals.journal.wait("cancelled", live.request_id)
        await animals.journal.wait("aborted", live.request_id)


@pytest.mark.parametrize("command", ["block", "spin", "ignore_cancel"])
async def test_stubborn_ones_end_when_they_are_let_go(served: tuple[Zoo, App], command: str) -> None:
    animals, app = served
    live = await opened(app, command)
    with anyio.fail_after(5):
        await animals.journal.wait("started", live.request_id)
    assert live.ending is None
    animals.release()
    assert (await ended(live))[1] == "completed"
    assert animals.journal.of(live.request_id)[-1] == "finished"


# -- the journal ---------------------------------------------------------------------------------------


async def test_it_wakes_those_who_wait_also_from_other_threads() -> None:
    journal = Journal()
    woken: list[str] = []

    async def wait(name: str, times: int) -> None:
        await journal.wait("x", "r", times=times)
        woken.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "first", 1)
        group.start_soon(wait, "second", 2)
        await anyio.wait_all_tasks_blocked()
        journal.record("y", "r")
        journal.record("x", "other")
        await anyio.wait_all_tasks_blocked()
        assert woken == []
        await asyncio.to_thread(journal.record, "x", "r")
        await anyio.wait_all_tasks_blocked()
        assert woken == ["first"]
        journal.record("x", "r")
    assert woken == ["first", "second"]
    assert journal.of("r") == ("y", "x", "x")
    assert (journal.count("x"), journal.count("x", "r"), journal.count("z")) == (3, 2, 0)


def test_threads_can_wait_too() -> None:
    journal = Journal()
    thread = threading.Thread(target=journal.record, args=("x", "r"))
    thread.start()
    journal.wait_blocking("x", "r")
    thread.join()
    with pytest.raises(TimeoutError, match=r"no 'y' within 0\.01 s"):
        journal.wait_blocking("y", timeout_s=0.01)
