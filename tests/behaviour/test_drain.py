"""Draining: new work is refused, what runs may finish, nobody is left without a terminal frame."""

from __future__ import annotations

import asyncio
import json

import anyio
import pytest

from behaviour.checks import until
from behaviour.connect import HttpJson, HttpNdjson, HttpSse, Refused, Way
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S
from behaviour.seam import Watched
from behaviour.served import Connect, hosted
from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.runtime.app import App
from penstock.server.host import Host
from penstock.testing.clock import FakeClock
from penstock.testing.zoo import Zoo, model_zoo

pytestmark = pytest.mark.anyio

STOPPED = pytest.mark.parametrize("way_in", [HttpJson, HttpNdjson, HttpSse], ids=lambda way: way.name)


def _gated() -> tuple[Zoo, asyncio.Event]:
    zoo, go = model_zoo(), asyncio.Event()

    @zoo.runtime.streaming_command("gated")
    async def gated():
        with zoo.life():
            yield {"i": 0}
            await go.wait()
            yield {"i": 1}

    return zoo, go


async def _draining(way: Way) -> None:
    async def status() -> str:
        return (await way.health())["status"]

    with anyio.fail_after(WAIT_S):
        while await status() != "draining":
            await anyio.lowlevel.checkpoint()


@promise("P22")
async def test_drain_refuses_new_calls_and_lets_the_running_ones_finish(connect: Connect) -> None:
    zoo, go = _gated()
    tasks = TaskOwner()
    async with connect(zoo.runtime) as way:
        calls = [await way.open("gated") for _ in range(3)]
        await zoo.journal.wait("started", times=3)
        drained = tasks.start(way.dispatcher.inner.drain())
        await _draining(way)
        with pytest.raises(Refused) as refused:
            await way.open("echo")
        assert (refused.value.status, refused.value.code) == (503, "unavailable")
        assert refused.value.retry_after >= 1
        assert not drained.done()
        go.set()
        for call in calls:
            assert (await call.last())["status"] == "completed"
        with anyio.fail_after(WAIT_S):
            await drained
        await tasks.aclose()


@promise("P22", "P1")
async def test_what_does_not_finish_in_time_gets_its_terminal_frame(connect: Connect) -> None:
    zoo, clock, tasks = model_zoo(), FakeClock(), TaskOwner()
    limits = CallLimits(drain_s=30.0)
    async with connect(zoo.runtime, clock=clock, limits=limits) as way:
        calls = [await way.open("silent") for _ in range(3)]
        await zoo.journal.wait("started", times=3)
        drained = tasks.start(way.dispatcher.inner.drain())
        await _draining(way)
        clock.advance(29.9)
        assert (await way.record(calls[0].request_id))["status"] == "accepted"
        clock.advance(0.1)
        for call in calls:
            frame = await call.last()
            assert (frame["status"], frame["code"], frame["retryable"]) == ("error", "unavailable", True)
        with anyio.fail_after(WAIT_S):
            await drained
        await tasks.aclose()


async def _stopping(host: Host, way: Way) -> None:
    host.stop()
    await _draining(way)


@promise("P22")
@STOPPED
async def test_a_server_that_is_stopped_finishes_its_streams_first(way_in: type[Way]) -> None:
    zoo, go = _gated()
    dispatcher = Watched(App(zoo.runtime))
    async with hosted(dispatcher) as (host, address):
        way = way_in(dispatcher, address)
        call = await way.open("gated")
        await zoo.journal.wait("started")
        await _stopping(host, way)
        with pytest.raises(Refused) as refused:
            await way.open("echo")
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        go.set()
        assert (await call.last())["status"] == "completed"
        await way.aclose()


@promise("P22", "P1")
@STOPPED
async def test_asked_twice_a_server_stops_at_once_but_not_without_a_word(way_in: type[Way]) -> None:
    zoo = model_zoo()
    dispatcher = Watched(App(zoo.runtime))
    async with hosted(dispatcher) as (host, address):
        way = way_in(dispatcher, address)
        call = await way.open("silent")
        await zoo.journal.wait("started")
        await _stopping(host, way)
        host.stop()
        frame = await call.last()
        assert (frame["status"], frame["code"]) == ("error", "unavailable")
        await way.aclose()


@promise("P22")
async def test_probes_tell_the_truth_while_it_drains(connect_http: Connect) -> None:
    zoo, go = _gated()
    tasks = TaskOwner()
    async with connect_http(zoo.runtime) as way:
        call = await way.open("gated")
        await call.until("streaming")
        for path in ("/livez", "/readyz", "/startupz", "/health"):
            assert (await way.request("GET", path)).status == 200
        drained = tasks.start(way.dispatcher.inner.drain())
        await _draining(way)
        told = {
            path: await way.request("GET", path) for path in ("/livez", "/readyz", "/startupz", "/health")
        }
        assert [reply.status for reply in told.values()] == [200, 503, 200, 503]
        assert all(json.loads(reply.body)["status"] == "draining" for reply in told.values())
        go.set()
        await call.frames()
        await until(drained.done, lambda: "draining")
        await tasks.aclose()
