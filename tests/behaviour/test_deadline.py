"""Deadlines: the total budget of a call, by a clock that tests move."""

from __future__ import annotations

import asyncio
import json

import pytest

from behaviour.checks import happened
from behaviour.connect import Refused
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import Runtime, current_call
from penstock.testing.clock import FakeClock
from penstock.testing.zoo import model_zoo

pytestmark = pytest.mark.anyio


@promise("P10")
async def test_a_call_past_its_deadline_fails_typed(connect: Connect) -> None:
    zoo, clock = model_zoo(), FakeClock()
    async with connect(zoo.runtime, clock=clock) as way:
        call = await way.open("silent", timeout=2.5)
        await zoo.journal.wait("started")
        clock.advance(2.49)
        assert (await way.record(call.request_id))["status"] == "accepted"
        clock.advance(0.01)
        frame = await call.last()
        assert (frame["status"], frame["code"], frame["retryable"]) == ("error", "deadline_exceeded", True)
        assert "2.5 s" in frame["error"]
        assert frame["details"][0]["budget"] == "total"
        await zoo.journal.wait("cancelled")
        await zoo.journal.wait("aborted")


@promise("P10")
async def test_the_time_in_the_queue_counts_and_an_expired_call_never_starts(connect: Connect) -> None:
    rt, clock = Runtime(), FakeClock()
    ran: list[str] = []
    started, go = asyncio.Event(), asyncio.Event()

    @rt.command("one_at_a_time", concurrency=1)
    async def one_at_a_time(name: str):
        ran.append(name)
        started.set()
        await go.wait()

    async with connect(rt, clock=clock) as way:
        first = await way.open("one_at_a_time", {"name": "first"})
        await happened(started)
        second = await way.open("one_at_a_time", {"name": "second"}, timeout=1)
        clock.advance(1.0)
        assert (await second.last())["code"] == "deadline_exceeded"
        go.set()
        assert (await first.last())["status"] == "completed"
        assert ran == ["first"]


@promise("P10")
async def test_a_deadline_in_mid_stream_keeps_what_was_sent(connect: Connect) -> None:
    rt, clock = Runtime(), FakeClock()
    waiting = asyncio.Event()

    @rt.streaming_command("count")
    async def count():
        for i in range(3):
            yield {"i": i}
        waiting.set()
        await asyncio.Event().wait()

    async with connect(rt, clock=clock) as way:
        call = await way.open("count", timeout=1)
        await happened(waiting)
        clock.advance(1.0)
        await call.frames()
        log = await way.log(call.request_id)
        assert [frame["status"] for frame in log] == ["accepted", *["streaming"] * 3, "error"]
        assert log[-1]["code"] == "deadline_exceeded"


@promise("P10")
async def test_deadlines_do_not_care_for_jumps_of_the_wall_clock(connect: Connect) -> None:
    rt, clock = Runtime(), FakeClock()
    waiting, told = asyncio.Event(), asyncio.Event()
    left: list[float | None] = []

    @rt.streaming_command("count")
    async def count():
        waiting.set()
        await told.wait()
        left.append(current_call().remaining())
        yield {"i": 0}
        clock.jump_wall(-7200)
        yield {"i": 1}

    async with connect(rt, clock=clock) as way:
        call = await way.open("count", timeout=10)
        await happened(waiting)
        clock.jump_wall(3600)
        clock.advance(4.0)
        told.set()
        assert (await call.last())["status"] == "completed"
        assert left == [6.0]  # and the log checker sees that the frames' times do not go back


@promise("P10")
async def test_without_a_deadline_none_is_left(connect: Connect) -> None:
    rt, clock = Runtime(), FakeClock()

    @rt.command("left")
    async def left():
        return [current_call().remaining(), current_call().deadline]

    async with connect(rt, clock=clock) as way:
        assert (await way.ask("left"))["data"] == [None, None]
        assert (await way.ask("left", timeout=4))["data"] == [4.0, clock.wall() + 4]


@promise("P10")
async def test_a_deadline_that_comes_after_the_end_changes_nothing(connect: Connect) -> None:
    clock = FakeClock()
    async with connect(model_zoo().runtime, clock=clock) as way:
        call = await way.open("echo", {"value": 1}, timeout=1)
        await call.frames()
        log = await way.log(call.request_id)
        clock.advance(10.0)
        assert await way.log(call.request_id) == log


@promise("P10", "P25")
@pytest.mark.parametrize("timeout", [0, -1, 604_801, 1e308])
async def test_a_deadline_out_of_range_is_refused(connect_http: Connect, timeout: float) -> None:
    async with connect_http(model_zoo().runtime) as way:
        with pytest.raises(Refused) as refused:
            await way.open("echo", timeout=timeout)
        assert (refused.value.status, refused.value.code) == (400, "invalid_argument")
        assert not way.dispatcher.calls


@promise("P10")
async def test_the_header_says_it_too_and_the_body_goes_before_it(connect_http: Connect) -> None:
    rt, clock = Runtime(), FakeClock()

    @rt.command("left")
    async def left():
        return current_call().remaining()

    async with connect_http(rt, clock=clock) as way:
        for more, header, expected in (({}, "3.5", 3.5), ({"timeout": 2}, "3.5", 2.0)):
            body = json.dumps({"command": "left", **more}).encode()
            reply = await way.request("POST", "/v2/execute", body, {"x-request-timeout": header})
            assert json.loads(reply.body)["data"] == expected
        for header in ("soon", "nan", "inf", "-1", "0"):
            body = json.dumps({"command": "left"}).encode()
            reply = await way.request("POST", "/v2/execute", body, {"x-request-timeout": header})
            assert (reply.status, json.loads(reply.body)["code"]) == (400, "invalid_argument"), header
