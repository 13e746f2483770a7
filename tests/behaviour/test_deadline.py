"""Deadlines: the total budget of a call, by a clock that tests move."""

from __future__ import annotations

import asyncio
import json

import pytest

from behaviour.checks import arrived, happened
from behaviour.connect import Refused
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import Runtime, current_call
from penstock.runtime.manifest import Manifest
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
        await arrived(call, 3)
        clock.advance(1.0)
        await call.frames()
        log = await way.log(call.request_id)
        assert [frame["status"] for frame in log] == ["accepted", *["streaming"] * 3, "error"]
        assert log[-1]["code"] == "deadline_exceeded"


class Budgeted:
    """Commands with budgets: `one`, of one call at a time, and `items`, which pause on the way."""

    def __init__(self, **timeouts: float) -> None:
        self.at, self.go = asyncio.Event(), asyncio.Event()
        self.ran: list[str] = []
        settings = {name: {"timeouts": timeouts} for name in ("one", "items")}
        self.runtime = rt = Runtime(Manifest.model_validate({"commands": settings}))
        rt.command("one", concurrency=1)(self.one)
        rt.streaming_command("items")(self.items)

    async def one(self, name: str):
        self.ran.append(name)
        self.at.set()
        await self.go.wait()
        return current_call().remaining()

    async def items(self, before: int = 0):
        for i in range(before):
            yield {"i": i}
        self.at.set()
        await self.go.wait()
        yield {"i": before}


def _overspent(frame: dict[str, object], budget: str, limit_s: float) -> None:
    assert (frame["status"], frame["code"]) == ("error", "deadline_exceeded")
    assert frame["details"] == [{"budget": budget, "limit_s": limit_s}]


@promise("P10")
async def test_the_budget_for_the_queue(connect: Connect) -> None:
    project, clock = Budgeted(queue_s=2.0), FakeClock()
    async with connect(project.runtime, clock=clock) as way:
        first = await way.open("one", {"name": "first"})
        await happened(project.at)
        second = await way.open("one", {"name": "second"}, timeout=60)
        clock.jump_wall(-3600)
        clock.advance(1.99)
        assert (await way.record(second.request_id))["status"] == "accepted"
        clock.jump_wall(7200)
        clock.advance(0.01)
        _overspent(await second.last(), "queue", 2)
        project.go.set()
        assert (await first.last())["status"] == "completed"  # its own wait was none
        assert project.ran == ["first"]


@promise("P10")
@pytest.mark.parametrize("before", [0, 3])
async def test_the_budgets_for_the_first_item_and_for_a_gap(connect: Connect, before: int) -> None:
    project, clock = Budgeted(first_item_s=3.0, gap_s=0.5), FakeClock()
    budget, limit_s = ("gap", 0.5) if before else ("first_item", 3.0)
    async with connect(project.runtime, clock=clock) as way:
        call = await way.open("items", {"before": before}, timeout=60)
        await happened(project.at)
        await arrived(call, before)
        clock.jump_wall(3600)
        clock.advance(limit_s - 0.01)
        assert "finished_at" not in await way.record(call.request_id)
        clock.jump_wall(-7200)
        clock.advance(0.01)
        _overspent(await call.last(), budget, limit_s)
        log = await way.log(call.request_id)
        assert [frame["status"] for frame in log] == ["accepted", *["streaming"] * before, "error"]


@promise("P10")
@pytest.mark.parametrize(("own", "left"), [(None, 5.0), (60.0, 5.0), (2.0, 2.0)])
async def test_the_budget_for_all_of_it_and_the_calls_own(
    connect: Connect, own: float | None, left: float
) -> None:
    project, clock = Budgeted(total_s=5.0), FakeClock()
    more = {} if own is None else {"timeout": own}
    async with connect(project.runtime, clock=clock) as way:
        project.go.set()
        assert (await way.ask("one", {"name": "asks"}, **more))["data"] == left
        project.go.clear()
        call = await way.open("items", **more)
        clock.advance(left)
        _overspent(await call.last(), "total", left)


@promise("P10")
@pytest.mark.parametrize("budget", ["queue", "total"])
async def test_an_expired_call_never_starts_also_where_its_timer_is_late(
    connect: Connect, budget: str
) -> None:
    """While code holds the event loop no timer fires; what waits then must not run first."""
    project, clock = Budgeted(**({"queue_s": 2.0} if budget == "queue" else {})), FakeClock()
    async with connect(project.runtime, clock=clock) as way:
        first = await way.open("one", {"name": "first"})
        await happened(project.at)
        more = {} if budget == "queue" else {"timeout": 2}
        second = await way.open("one", {"name": "second"}, **more)
        clock.hold(2.0)
        project.go.set()
        assert (await first.last())["status"] == "completed"
        _overspent(await second.last(), budget, 2)
        assert project.ran == ["first"]


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
