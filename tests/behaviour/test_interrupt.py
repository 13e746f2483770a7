"""Code that blocks in a thread, and how a cancel reaches it: when it asks, at its yield, or at any step."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from behaviour.checks import at_rest, happened, told
from behaviour.connect import Way
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S
from behaviour.served import Connect
from penstock import CallInterrupted, Runtime, current_call
from penstock.calls.limits import CallLimits
from penstock.protocol.dispatch import LOCAL
from penstock.testing.clock import FakeClock
from penstock.testing.journal import Journal

pytestmark = pytest.mark.anyio

DEADLINE_S = 10.0


class Computing:
    """Commands that compute without end in a thread, and note what becomes of them."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.released = threading.Event()
        self.runtime = rt = Runtime()
        rt.command("compute", interrupt=True)(self.compute)
        rt.streaming_command("generate", interrupt=True)(self.generate)
        rt.command("shielded", interrupt=True)(self.shielded)
        rt.command("stubborn", interrupt=True, concurrency=1)(self.stubborn)
        rt.command("closed")(self.closed)

    def note(self, event: str) -> None:
        with current_call().shield():  # the journal has a lock, as a log or a queue has
            self.journal.record(event)

    def compute(self) -> None:
        try:
            self.note("started")
            while True:
                pass
        except CallInterrupted:
            self.note("interrupted")
            raise
        finally:
            sum(range(10_000))  # cleaning up is not disturbed
            self.note("cleaned up")

    def generate(self):
        yield {"i": 0}
        yield from iter(self.compute, None)

    def shielded(self) -> None:
        with current_call().shield():
            self.journal.record("started")
            with current_call().shield():
                self.released.wait(WAIT_S)
            sum(range(10_000))
            self.journal.record("whole")
        self.journal.record("behind")

    def stubborn(self) -> None:
        try:
            self.compute()
        except CallInterrupted:
            self.note("swallowed")
            self.released.wait(WAIT_S)

    def closed(self) -> None:
        self.note("started")
        while not self.released.is_set():
            pass
        self.note("went on")


async def cut(way: Way, call: object, how: str, clock: FakeClock) -> None:
    """Cancel a call, or let its time pass."""
    if how == "deadline":
        clock.advance(DEADLINE_S)
    else:
        assert await call.cancel() == "cancelled"


@promise("P9")
@pytest.mark.parametrize("trigger", ["caller", "deadline"])
@pytest.mark.parametrize("command", ["compute", "generate"])
async def test_code_that_computes_is_interrupted(connect: Connect, command: str, trigger: str) -> None:
    project, clock = Computing(), FakeClock()
    async with connect(project.runtime, clock=clock) as way:
        call = await way.open(command, timeout=DEADLINE_S)
        await project.journal.wait("started", call.request_id)
        await cut(way, call, trigger, clock)
        last = await call.last()
        if trigger == "caller":
            assert (last["status"], last["reason"]) == ("cancelled", "caller")
        else:
            assert last["code"] == "deadline_exceeded"
        await at_rest(way.dispatcher.inner)
        assert project.journal.of(call.request_id) == ("started", "interrupted", "cleaned up")
        assert (await way.record(call.request_id))["cancel"]["stuck"] is False


@promise("P9")
async def test_a_shield_is_never_torn(connect: Connect) -> None:
    project = Computing()
    async with connect(project.runtime) as way:
        call = await way.open("shielded")
        await project.journal.wait("started", call.request_id)
        assert await call.cancel() == "cancelled"
        await told(call)
        project.released.set()
        assert (await call.last())["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
        assert project.journal.of(call.request_id) == ("started", "whole")


@promise("P9")
async def test_code_that_swallows_it_keeps_its_permit_and_is_reported(connect: Connect) -> None:
    project, clock = Computing(), FakeClock()
    async with connect(project.runtime, clock=clock, limits=CallLimits(cancel_grace_s=2.0)) as way:
        call = await way.open("stubborn")
        await project.journal.wait("started", call.request_id)
        await call.cancel()
        await project.journal.wait("swallowed", call.request_id)
        waiting = await way.open("stubborn")
        clock.advance(2.0)
        assert (await call.last())["status"] == "cancelled"
        assert (await way.record(call.request_id))["cancel"]["stuck"] is True
        assert project.journal.of(waiting.request_id) == ()
        project.released.set()
        await project.journal.wait("started", waiting.request_id)
        await waiting.cancel()
        assert (await waiting.last())["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
        assert project.journal.count("swallowed", call.request_id) == 1


@promise("P9")
async def test_code_is_interrupted_only_where_its_author_allows_it(connect: Connect) -> None:
    project = Computing()
    async with connect(project.runtime) as way:
        call = await way.open("closed")
        await project.journal.wait("started", call.request_id)
        await call.cancel()
        project.released.set()
        assert (await call.last())["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
        assert project.journal.of(call.request_id) == ("started", "went on")


@promise("P8", "P9")
async def test_calls_that_race_their_cancel_leave_the_next_ones_alone(connect: Connect) -> None:
    """The threads are used again at once: a late exception would end another call, or its thread."""
    rt = Runtime()

    @rt.command("count", interrupt=True, concurrency=2)
    def count(to: int):
        return sum(1 for _ in range(to))

    @rt.streaming_command("step", interrupt=True, concurrency=2)
    def step(to: int):
        yield from iter(range(to))

    async with connect(rt) as way:
        for turn in range(40):
            cut = [await way.open(name, {"to": 40 * turn}) for name in ("count", "step")]
            outcomes = [await call.cancel() for call in cut]
            for call, outcome in zip(cut, outcomes, strict=True):
                last = await call.last()
                assert last["status"] == ("cancelled" if outcome == "cancelled" else "completed")
                await call.aclose()
            assert (await way.ask("count", {"to": 50}))["data"] == 50
            assert (await way.ask("step", {"to": 50}))["data"] == 49


@promise("P9")
@pytest.mark.parametrize("interrupt", [False, True])
async def test_code_that_asks_is_told_in_its_own_threads_too(connect: Connect, interrupt: bool) -> None:
    rt, journal = Runtime(), Journal()

    def ask() -> None:
        with current_call().shield():
            journal.record("asking")
        while True:
            current_call().raise_if_cancelled()

    @rt.command("here", interrupt=interrupt)
    def here():
        try:
            ask()
        finally:
            with current_call().shield():
                journal.record("left")

    @rt.command("in_a_thread", interrupt=interrupt)
    def in_a_thread():
        def run() -> None:
            try:
                ask()
            except CallInterrupted:
                journal.record("left")

        thread = threading.Thread(target=lambda: inner(run))
        with current_call().shield():
            thread.start()
            thread.join(WAIT_S)

    def inner(run) -> None:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(WAIT_S)

    @rt.command("in_a_pool", interrupt=interrupt)
    def in_a_pool():
        with current_call().shield(), ThreadPoolExecutor(1) as pool:
            try:
                pool.submit(ask).result(WAIT_S)
            except asyncio.CancelledError:  # it is one of these
                journal.record("left")
                raise

    async with connect(rt) as way:
        for command in ("here", "in_a_thread", "in_a_pool"):
            call = await way.open(command)
            await journal.wait("asking", call.request_id)
            await call.cancel()
            assert (await call.last())["status"] == "cancelled", command
            await at_rest(way.dispatcher.inner)
            assert journal.of(call.request_id) == ("asking", "left"), command
            live = way.dispatcher.find(call.request_id, LOCAL)
            assert live.record().cancel["delivered_at"] is not None


@promise("P9")
async def test_a_generator_in_a_thread_is_closed_at_its_next_yield(connect: Connect) -> None:
    rt, journal = Runtime(), Journal()
    inside, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @rt.streaming_command("generate")
    def generate():
        try:
            yield {"i": 0}
            loop.call_soon_threadsafe(inside.set)
            go.wait(WAIT_S)
            journal.record("to its yield")
            yield {"i": 1}
            journal.record("never")
        finally:
            journal.record("closed")

    async with connect(rt) as way:
        call = await way.open("generate")
        await happened(inside)
        await call.cancel()
        await told(call)
        go.set()
        assert (await call.last())["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
        assert journal.of(call.request_id) == ("to its yield", "closed")


@promise("P9")
async def test_an_initialisation_is_interrupted_too(connect: Connect) -> None:
    rt, journal = Runtime(), Journal()
    hold = threading.Event()

    @rt.command("initialize", interrupt=True)
    def initialize(heavy: bool = False):
        with current_call().shield():
            journal.record("started")
        while heavy and not hold.is_set():
            pass
        return {"size": 1}

    @rt.command("predict")
    async def predict(size=None):
        return size

    async with connect(rt) as way:
        call = await way.open("initialize", {"heavy": True})
        await journal.wait("started", call.request_id)
        await call.cancel()
        assert (await call.last())["status"] == "cancelled"
        await at_rest(way.dispatcher.inner)
        assert (await way.ask("predict"))["data"] == 1  # initialised anew
        hold.set()
