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
        assert told.project[call.request_id] == (1 if cancelled else 0)
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
