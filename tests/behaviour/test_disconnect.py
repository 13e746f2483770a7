"""A caller that goes away: its call is cut, or goes on, as it asked."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from behaviour.checks import happened, unread
from behaviour.promises import promise
from behaviour.raw_http import Departure
from behaviour.served import Connect
from penstock import Runtime, current_call
from penstock.testing.clock import FakeClock
from penstock.testing.zoo import model_zoo

pytestmark = pytest.mark.anyio

LOOPS = [pytest.param("asyncio", id="asyncio")]
try:
    import uvloop  # noqa: F401
except ImportError:
    pass
else:
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(scope="module", params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """How a socket's end is told differs between event loops."""
    return request.param


@promise("P5")
async def test_leaving_a_silent_call_cancels_it(connect: Connect, how: Departure) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime) as way:
        call = await way.open("silent")
        await zoo.journal.wait("started", call.request_id)
        await call.drop(how)
        await zoo.journal.wait("cancelled", call.request_id)
        await zoo.journal.wait("aborted", call.request_id)
        last = (await way.log(call.request_id))[-1]
        assert (last["status"], last["reason"]) == ("cancelled", "disconnect")


@promise("P5")
async def test_leaving_a_stream_cancels_it(connect: Connect, how: Departure) -> None:
    rt = Runtime()
    seen = asyncio.Semaphore(0)
    felt = asyncio.Event()

    @rt.streaming_command("count")
    async def count():
        try:
            for i in range(1000):
                yield {"i": i}
                await seen.acquire()
        finally:
            felt.set()

    async with connect(rt) as way:
        call = await way.open("count")
        watched = await way.watch(call)
        for _ in range(3):
            await watched.until("streaming")
            seen.release()
        await watched.until("streaming")
        if watched is not call:
            await watched.drop()
        await call.drop(how)
        await happened(felt)
        log = await way.log(call.request_id)
        assert [frame["status"] for frame in log[1:]] == ["streaming"] * 4 + ["cancelled"]
        assert log[-1]["reason"] == "disconnect"


@promise("P5")
async def test_leaving_reaches_code_that_blocks_a_thread(connect: Connect, how: Departure) -> None:
    rt = Runtime()
    told = threading.Event()
    started = threading.Event()

    @rt.command("blocks")
    def blocks():
        current_call().on_abort(lambda _: told.set())
        started.set()
        assert told.wait(5)
        return current_call().cancelled

    async with connect(rt) as way:
        call = await way.open("blocks")
        assert await asyncio.to_thread(started.wait, 5)
        await call.drop(how)
        assert await asyncio.to_thread(told.wait, 5)
        last = (await way.log(call.request_id))[-1]
        assert (last["status"], last["reason"]) == ("cancelled", "disconnect")


@promise("P5")
async def test_leaving_the_queue_gives_up_the_place(connect: Connect, how: Departure) -> None:
    rt = Runtime()
    ran: list[int] = []
    go = asyncio.Event()

    @rt.command("one_at_a_time", concurrency=1)
    async def one_at_a_time(n: int):
        ran.append(n)
        await go.wait()

    async with connect(rt) as way:
        calls = [await way.open("one_at_a_time", {"n": n}) for n in range(3)]
        await calls[1].drop(how)
        await unread(calls[1])
        last = (await way.log(calls[1].request_id))[-1]
        assert (last["status"], last["reason"]) == ("cancelled", "disconnect")
        go.set()
        assert (await calls[2].last())["status"] == "completed"
        assert ran == [0, 2]


@promise("P5")
async def test_a_call_goes_on_if_its_caller_said_so(connect: Connect, how: Departure) -> None:
    rt = Runtime()
    go = asyncio.Event()

    @rt.streaming_command("count")
    async def count():
        yield {"i": 0}
        await go.wait()
        yield {"i": 1}

    async with connect(rt) as way:
        call = await way.open("count", on_disconnect="continue")
        await call.until("streaming")
        await call.drop(how)
        await unread(call)
        assert (await way.record(call.request_id))["status"] == "streaming"
        go.set()
        log = await way.log(call.request_id)
        assert [frame["status"] for frame in log] == ["accepted", "streaming", "streaming", "completed"]


@promise("P5")
async def test_a_call_is_cut_when_its_grace_is_over(connect: Connect, how: Departure) -> None:
    zoo, clock = model_zoo(), FakeClock()
    async with connect(zoo.runtime, clock=clock) as way:
        call = await way.open("silent", on_disconnect={"grace_s": 30})
        await zoo.journal.wait("started")
        await call.drop(how)
        await unread(call)
        clock.advance(29.9)
        assert (await way.record(call.request_id))["status"] == "accepted"
        clock.advance(0.1)
        await zoo.journal.wait("cancelled")
        last = (await way.log(call.request_id))[-1]
        assert (last["status"], last["reason"]) == ("cancelled", "disconnect")


@promise("P5")
async def test_who_comes_back_within_the_grace_finds_the_call_running(connect: Connect) -> None:
    zoo, clock = model_zoo(), FakeClock()
    async with connect(zoo.runtime, clock=clock) as way:
        call = await way.open("silent", on_disconnect={"grace_s": 30})
        await zoo.journal.wait("started")
        await call.drop()
        await unread(call)
        clock.advance(29.0)
        again = await way.resume(call.request_id)
        await again.until("accepted")
        clock.advance(60.0)
        assert (await way.record(call.request_id))["status"] == "accepted"
        await again.drop()
        await unread(call)
        clock.advance(30.0)  # a second departure has a grace of its own
        await zoo.journal.wait("cancelled")


@promise("P5")
async def test_only_the_last_reader_to_go_ends_a_call(connect: Connect, how: Departure) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime) as way:
        call = await way.open("silent")
        await zoo.journal.wait("started")
        other = await way.resume(call.request_id)
        await other.until("accepted")
        gone = await way.resume(call.request_id)
        await gone.until("accepted")
        await gone.drop(how)
        await call.drop(how)
        await other.drop(how)
        await zoo.journal.wait("cancelled")
        assert (await way.log(call.request_id))[-1]["reason"] == "disconnect"


@promise("P5", "P8")
async def test_one_that_leaves_disturbs_no_other(connect: Connect, how: Departure) -> None:
    rt = Runtime()
    go = asyncio.Event()

    @rt.streaming_command("count")
    async def count(n: int):
        yield {"n": n, "i": 0}
        await go.wait()
        yield {"n": n, "i": 1}

    async with connect(rt) as way:
        calls = [await way.open("count", {"n": n}) for n in range(10)]
        for call in calls:
            await call.until("streaming")
        for call in calls[::2]:
            await call.drop(how)
            await unread(call)
        go.set()
        for n, call in enumerate(calls):
            log = await way.log(call.request_id)
            if n % 2:
                assert [frame.get("data") for frame in log[1:-1]] == [{"n": n, "i": 0}, {"n": n, "i": 1}]
                assert (await call.last())["status"] == "completed"
            else:
                assert log[-1]["reason"] == "disconnect"
