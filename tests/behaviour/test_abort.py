"""Abort callbacks: once for each call that was cancelled, in threads of their own, and never else."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from behaviour.checks import at_rest, happened
from behaviour.connect import Handle, Way
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S
from behaviour.served import Connect
from penstock import Runtime, current_call, register_abort_callback
from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.runtime.manifest import Manifest
from penstock.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

TRIGGERS = ("caller", "deadline", "fin", "rst", "drain")
POINTS = ("queued", "before the first frame", "mid-way", "after the end")
DEADLINE_S = 10.0


class Told:
    """A project that counts, for each call, how often its callbacks ran."""

    def __init__(self) -> None:
        self.project: Counter[str] = Counter()
        self.own: Counter[str] = Counter()
        self.threads: set[threading.Thread] = set()
        self.at = asyncio.Event()
        self.runtime = rt = Runtime(Manifest(startup=["initialize"]))

        @rt.command("initialize")
        def initialize():
            register_abort_callback(self._told)
            register_abort_callback(self._told)  # no second time for that
            return {}

        @rt.streaming_command("predict", concurrency=1)
        async def predict(point: str):
            call = current_call()
            call.on_abort(lambda request_id: self.own.update([request_id]))
            if point == "mid-way":
                yield {"i": 0}
            if point != "after the end":
                self.at.set()
                await asyncio.Event().wait()

    def _told(self, request_id: str) -> None:
        self.threads.add(threading.current_thread())
        self.project[request_id] += 1


async def _trigger(trigger: str, way: Way, call: Handle, clock: FakeClock) -> None:
    if trigger == "caller":
        await call.cancel()
    elif trigger == "deadline":
        clock.advance(DEADLINE_S)
    elif trigger != "drain":
        await call.drop("rst" if trigger == "rst" else "fin")


def _abort_threads_are_done() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("penstock-abort"):
            thread.join(WAIT_S)
            assert not thread.is_alive()


@promise("P4")
@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("point", POINTS)
async def test_callbacks_run_once_per_cancelled_call(connect: Connect, point: str, trigger: str) -> None:
    told, clock, tasks = Told(), FakeClock(), TaskOwner()
    limits = CallLimits(drain_s=1.0)
    async with connect(told.runtime, clock=clock, limits=limits) as way:
        if point == "queued":
            holder = await way.open("predict", {"point": "before the first frame"})
            await happened(told.at)
        call = await way.open("predict", {"point": point}, timeout=DEADLINE_S)
        if point == "after the end":
            await way.log(call.request_id)
        elif point != "queued":
            await happened(told.at)
        await _trigger(trigger, way, call, clock)
        if trigger == "drain":
            tasks.start(way.dispatcher.inner.drain())
            await asyncio.sleep(0)
            clock.advance(limits.drain_s)
        await way.log(call.request_id)
        if point == "queued":
            await holder.cancel()
        await at_rest(way.dispatcher.inner)
        _abort_threads_are_done()
        cancelled = point != "after the end"
        known = way.name != "gateway" or point != "queued"  # what waits at a gateway is known to no project
        assert told.project[call.request_id] == (1 if cancelled and known else 0)
        assert told.own[call.request_id] == (1 if cancelled and point != "queued" else 0)
        assert threading.main_thread() not in told.threads
        await tasks.aclose()


@promise("P4")
async def test_a_slow_or_raising_callback_delays_nobody(connect: Connect) -> None:
    rt = Runtime()
    waiting = asyncio.Event()
    hold, told = threading.Event(), threading.Event()

    def slow(_: str) -> None:
        hold.wait(WAIT_S)

    def raising(_: str) -> None:
        raise RuntimeError("an author's mistake")

    @rt.command("predict")
    async def predict():
        for callback in (slow, raising, lambda _: told.set()):
            current_call().on_abort(callback)
        waiting.set()
        await asyncio.Event().wait()

    async with connect(rt) as way:
        call = await way.open("predict")
        await happened(waiting)
        await call.cancel()
        assert (await call.last())["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
        assert await asyncio.to_thread(told.wait, WAIT_S)
        assert not hold.is_set()
        hold.set()
        _abort_threads_are_done()


@promise("P4")
async def test_a_callback_registered_after_the_cancel_runs_at_once(connect: Connect) -> None:
    rt = Runtime()
    waiting, told = asyncio.Event(), threading.Event()

    @rt.command("predict")
    async def predict():
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            current_call().on_abort(lambda _: told.set())

    async with connect(rt) as way:
        call = await way.open("predict")
        await happened(waiting)
        await call.cancel()
        assert await asyncio.to_thread(told.wait, WAIT_S)
        assert (await call.last())["status"] == "cancelled"


@promise("P4")
async def test_what_a_callback_raises_is_logged_and_harms_nobody(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    rt = Runtime()
    waiting, told = asyncio.Event(), threading.Event()

    def raise_it(error: BaseException) -> None:
        raise error

    @rt.command("predict")
    async def predict():
        for error in (ValueError("a mistake"), SystemExit("a worse one"), asyncio.CancelledError()):
            current_call().on_abort(lambda _, error=error: raise_it(error))
        current_call().on_abort(lambda _: told.set())
        waiting.set()
        await asyncio.Event().wait()

    @rt.command("echo")
    async def echo(value: int):
        return value

    async with connect(rt) as way:
        call = await way.open("predict")
        await happened(waiting)
        await call.cancel()
        assert (await call.last())["status"] == "cancelled"
        assert await asyncio.to_thread(told.wait, WAIT_S)
        await asyncio.to_thread(_abort_threads_are_done)
        assert (await way.ask("echo", {"value": 1}))["data"] == 1
        logged = [record for record in caplog.records if record.name == "penstock.abort"]
        kinds = {record.exc_info[0] for record in logged if call.request_id in record.getMessage()}
        assert kinds == {ValueError, SystemExit, asyncio.CancelledError}


@promise("P4")
async def test_a_callback_of_initialize_goes_with_the_state_it_built(connect: Connect) -> None:
    rt = Runtime()
    told: list[tuple[str, str]] = []
    at = asyncio.Event()

    @rt.command("initialize")
    def initialize(name: str = "old"):
        # In a thread of its own, as clients that connect in the background do.
        register = threading.Thread(
            target=lambda: register_abort_callback(lambda request_id: told.append((name, request_id)))
        )
        register.start()
        register.join(WAIT_S)
        return {"model": name}

    @rt.command("predict")
    async def predict(model=None):
        at.set()
        await asyncio.Event().wait()

    async def opened(way: Way) -> Handle:
        at.clear()
        call = await way.open("predict")
        await happened(at)
        return call

    async with connect(rt) as way:
        with_old = await opened(way)
        await way.ask("initialize", {"name": "new"})
        with_new = await opened(way)
        for call in (with_old, with_new):
            await call.cancel()
            await call.last()
        await at_rest(way.dispatcher.inner)
        await way.ask("cleanup")
        without = await opened(way)  # which initialises anew
        await without.cancel()
        await without.last()
        await asyncio.to_thread(_abort_threads_are_done)
        expected = [("old", with_old), ("new", with_new), ("old", without)]
        assert told == [(name, call.request_id) for name, call in expected]


@promise("P4")
async def test_an_early_abort_is_kept_for_who_comes_to_know_the_id_later(connect: Connect) -> None:
    """A client that is made within the call, when that has been cancelled already."""
    rt = Runtime()
    inside, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    told: Counter[str] = Counter()
    early = [lambda request_id: told.update(["early", request_id])]

    @rt.command("predict")
    def predict():
        register_abort_callback(early[0])
        loop.call_soon_threadsafe(inside.set)
        go.wait(WAIT_S)
        for _ in range(2):
            register_abort_callback(early[0])
            register_abort_callback(late)
            current_call().on_abort(late)

    def late(request_id: str) -> None:
        told.update(["late", request_id])

    async with connect(rt) as way:
        call = await way.open("predict")
        await happened(inside)
        await call.cancel()
        go.set()
        assert (await call.last())["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
        await asyncio.to_thread(_abort_threads_are_done)
        assert told == {"early": 1, "late": 1, call.request_id: 2}


@promise("P4", "P8")
async def test_a_late_abort_never_hits_a_call_that_reuses_the_id(connect: Connect) -> None:
    rt = Runtime()
    working: set[str] = set()  # at the upstream, by the id it was given
    at, hold = asyncio.Event(), threading.Event()

    def abort(request_id: str) -> None:
        hold.wait(WAIT_S)  # on its way for long
        working.discard(request_id)

    @rt.command("predict")
    async def predict():
        working.add(current_call().request_id)
        current_call().on_abort(abort)
        at.set()
        await asyncio.Event().wait()

    async with connect(rt) as way:
        first = await way.open("predict", task_id="mine")
        await happened(at)
        await first.cancel()
        assert (await first.last())["status"] == "cancelled"
        at.clear()
        second = await way.open("predict", task_id="mine")
        await happened(at)
        hold.set()
        await asyncio.to_thread(_abort_threads_are_done)
        assert working == {second.request_id}
        assert (await way.record("mine"))["status"] == "accepted"
        await second.cancel()
        await second.last()
        await asyncio.to_thread(_abort_threads_are_done)
        assert working == set()
