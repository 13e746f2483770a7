"""What a cancelled call held comes back; what cannot come back is held, and reported."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest

from behaviour.checks import at_rest, happened, permits, until
from behaviour.connect import Refused, Way
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import Runtime, current_call
from penstock.calls.limits import CallLimits
from penstock.protocol.call import CallLog
from penstock.testing.clock import FakeClock
from penstock.testing.zoo import model_zoo

pytestmark = pytest.mark.anyio

BATCH = 25
SPARE_THREADS = 2 * BATCH
COMMANDS = ("async_generator", "coroutine", "generator", "function", "queued")


class Cancellable:
    """Commands of every kind that run until they are cancelled."""

    def __init__(self) -> None:
        self.runtime = rt = Runtime()

        @rt.streaming_command("async_generator")
        async def async_generator():
            yield {"n": 0}
            await asyncio.Event().wait()

        @rt.command("coroutine")
        async def coroutine():
            await asyncio.Event().wait()

        @rt.streaming_command("generator")
        def generator():
            yield {"n": 0}
            self._until_cancelled()
            yield {"n": 1}

        @rt.command("function")
        def function():
            self._until_cancelled()
            current_call().raise_if_cancelled()

        @rt.command("queued", concurrency=1)
        async def queued():
            await asyncio.Event().wait()

    def _until_cancelled(self) -> None:
        cancelled = threading.Event()
        current_call().on_abort(lambda _: cancelled.set())
        assert cancelled.wait(30)


async def _cancel_many(way: Way, number: int) -> None:
    for first in range(0, number, BATCH):
        names = [COMMANDS[n % len(COMMANDS)] for n in range(first, first + BATCH)]
        calls = await asyncio.gather(*(way.open(name) for name in names))
        assert set(await asyncio.gather(*(call.cancel() for call in calls))) == {"cancelled"}
        for call in calls:
            assert (await call.last())["status"] == "cancelled"
            await call.aclose()
            way.handles.remove(call)
        await at_rest(way.dispatcher.inner)
        await at_rest(way.app)
        if way.name == "gateway":  # a runner forgets a call when it has told its end, after its place is free
            await until(lambda: not way.app._store._by_request, lambda: way.app._store._by_request)
        way.dispatcher.calls.clear()


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.is_dir() else 0


def _objects() -> list[object]:
    gc.unfreeze()  # a server that was run in this process may have put what there was out of sight
    gc.collect()
    return gc.get_objects()


def _count_logs() -> int:
    return sum(type(thing) is CallLog for thing in _objects())


def _count_objects() -> int:
    return len(_objects())


@promise("P9")
async def test_1000_cancelled_calls_leave_nothing_behind(connect: Connect) -> None:
    async with connect(Cancellable().runtime, limits=CallLimits(known_calls=BATCH)) as way:
        await _cancel_many(way, 200)  # so that pools and caches are as large as they get
        threads, files, logs = threading.active_count(), _open_files(), _count_logs()
        objects = _count_objects()
        await _cancel_many(way, 800)
        assert permits(way.dispatcher.inner) == (0, 0, 0, 0)
        # As many as run at once may have needed more threads since; one kept for each call would be 800.
        await until(lambda: threading.active_count() <= threads + SPARE_THREADS, threading.enumerate)
        await until(lambda: _open_files() <= files + 1, _open_files)
        await until(lambda: _count_logs() <= logs, _count_logs)
        assert _count_objects() < objects + 800, "about one object or more per call has stayed"


@promise("P9")
@pytest.mark.parametrize("command", ["ignore_cancel", "block"])
async def test_code_that_ignores_its_cancel_keeps_its_permit_and_is_reported(
    connect: Connect, command: str
) -> None:
    zoo, clock = model_zoo(), FakeClock()
    rt = Runtime()
    whole = zoo.runtime.commands[command]
    mark = rt.streaming_command if whole.streaming else rt.command
    mark(command, concurrency=1, queue=0)(whole.function)
    limits = CallLimits(cancel_grace_s=5.0)
    async with connect(rt, limits=limits, clock=clock) as way:
        call = await way.open(command)
        await zoo.journal.wait("started")
        assert await call.cancel() == "cancelled"
        assert (await way.record(call.request_id))["cancel"]["stuck"] is False
        clock.advance(limits.cancel_grace_s)
        frame = await call.last()  # its caller does not wait for it any longer ...
        assert (frame["status"], frame["reason"]) == ("cancelled", "caller")
        assert (await way.record(call.request_id))["cancel"]["stuck"] is True
        assert (await way.health())["checks"]["stuck"] == "1"
        assert permits(way.dispatcher.inner).running == 1
        with pytest.raises(Refused) as refused:  # ... but its permit is not given to another
            await way.open(command)
        assert refused.value.code == "resource_exhausted"
        zoo.release()
        await at_rest(way.dispatcher.inner)
        assert "stuck" not in (await way.health())["checks"]
        assert (await way.record(call.request_id))["cancel"]["stuck"] is False
        following = await way.open(command)
        assert (await following.last())["status"] == "completed"


@promise("P9")
async def test_a_permit_waits_for_the_authors_finally(connect: Connect) -> None:
    rt = Runtime()
    waiting, cleaned = asyncio.Event(), asyncio.Event()

    @rt.command("tidy", concurrency=1)
    async def tidy():
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            await cleaned.wait()

    async with connect(rt) as way:
        call = await way.open("tidy")
        await happened(waiting)
        await call.cancel()
        following = await way.open("tidy")
        assert permits(way.dispatcher.inner)[:2] == (1, 1)
        waiting.clear()
        cleaned.set()
        assert (await call.last())["status"] == "cancelled"
        await happened(waiting)  # of the following call: it has the permit now
        await following.cancel()
        assert (await following.last())["status"] == "cancelled"


@promise("P9")
async def test_a_yield_after_the_cancel_goes_nowhere(connect: Connect) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime) as way:
        call = await way.open("late_yield_after_cancel")
        await call.until("streaming")
        await call.cancel()
        assert (await call.last())["status"] == "cancelled"
        log = await way.log(call.request_id)
        assert log[-1]["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
