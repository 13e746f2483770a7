"""Real runners on real sockets: links that drop at any moment, freeze, and gateways that start anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from behaviour.checks import at_rest, happened, until
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S
from behaviour.sites import ITEMS, Project, data, runner, site
from penstock.calls.inputs import MAX_WAITING
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError
from penstock.gateway.runner import Parting
from penstock.protocol.messages import CancelReason
from penstock.runner.runner import Runner
from penstock.runtime.app import App
from penstock.runtime.manifest_parts import CommandSettings

pytestmark = pytest.mark.anyio


@promise("P12")
@pytest.mark.parametrize(
    ("up", "sizes"),
    [(True, range(1, 900, 11)), (False, range(1, 240, 3))],
    ids=["to the gateway", "to the runner"],
)
async def test_a_link_that_is_cut_after_any_number_of_bytes_loses_and_repeats_nothing(
    up: bool, sizes: range
) -> None:
    async with site() as at, runner(at, Project()):
        cut = 0
        for size in sizes:
            at.cable.cut_after(size, up=up)
            frames = await at.frames(await at.open("count", pad=20))
            assert data(frames) == list(range(ITEMS)), size
            assert frames[-1]["status"] == "completed"
            cut += at.cable.cut_done.is_set()
        assert cut > 40
        assert at.cable.connections == cut + 1


@promise("P12")
async def test_a_link_that_is_cut_again_and_again_carries_many_streams_whole() -> None:
    chance = random.Random(7)
    async with site() as at, runner(at, Project()):
        lives = [await at.open("count", items=2000, pad=chance.randrange(200)) for _ in range(8)]
        for _ in range(25):
            at.cable.cut_after(chance.randrange(1, 60_000), up=chance.random() < 0.7)
            with suppress(TimeoutError), anyio.fail_after(0.2):
                await at.cable.cut_done.wait()
        for live in lives:
            frames = await at.frames(live)
            assert data(frames) == list(range(2000))
            assert frames[-1]["status"] == "completed"


@promise("P12", "P23")
async def test_a_half_open_link_is_found_by_both_sides_and_replaced() -> None:
    project = Project()
    async with site(heartbeat_s=0.1) as at, runner(at, project):
        live = await at.open("wait")
        await happened(project.waits)
        at.cable.freeze()
        [link] = at.hub.runners
        await until(lambda: not link.connected or at.cable.connections == 2, lambda: link.status)
        await at.there()
        project.go.set()
        frames = await at.frames(live)
        assert data(frames) == [0, 1]
        assert frames[-1]["status"] == "completed"


@promise("P23")
async def test_a_runner_whose_loop_is_held_is_away_and_comes_back_with_its_calls() -> None:
    project = Project()
    async with site(heartbeat_s=0.1) as at, runner(at, project) as running:
        live = await at.open("wait")
        await happened(project.waits)
        [line], [link] = running.lines, at.hub.runners
        heard, line._heard = line._heard, lambda _: None  # type: ignore[method-assign] - it hears, and says nothing
        await until(lambda: link.state == "away", lambda: link.status)
        line._heard = heard  # type: ignore[method-assign]
        await at.there()
        project.go.set()
        assert (await at.frames(live))[-1]["status"] == "completed"


@promise("P23")
async def test_a_call_that_moves_runs_to_its_end_once() -> None:
    idempotent = {"wait": CommandSettings(idempotent=True)}
    first, second = Project(**idempotent), Project(**idempotent)
    async with site(heartbeat_s=0.1) as at, runner(at, first, "first"):
        live = await at.open("wait", first=False)
        await happened(first.waits)
        at.cable.refuses = True
        at.cable.cut()
        async with Runner(App(second.runtime), [f"ws://{at.address[0]}:{at.address[1]}"], "second"):
            await happened(second.waits)
            at.cable.refuses = False
            await until(lambda: bool(first.ended), lambda: "it runs on where it was")
            second.go.set()
            frames = await at.frames(live)
        assert [frame["status"] for frame in frames] == ["accepted", "streaming", "completed"]
        assert (first.started, second.started) == ([live.request_id], [live.request_id])


@promise("P23")
async def test_a_gateway_that_starts_anew_ends_what_its_runners_ran_for_it() -> None:
    project = Project()
    async with site() as at, runner(at, project):
        for number in range(10):
            lives = [await at.open("wait") for _ in range(4)]
            await until(lambda: len(project.started) == 4 * (number + 1), lambda: project.started)  # noqa: B023
            old = at.hub
            at.cable.refuses = True
            at.cable.cut()  # the gateway is gone without a word
            for each in old.runners:
                each.lose("the process ended", Parting.STOPPING)
            await at.start_hub()
            at.cable.refuses = False
            for live in lives:
                [*_, last] = await at.frames(live)
                assert (last["status"], last["code"]) == ("error", "unavailable")
            await at.there()
            await until(lambda: sorted(project.ended) == sorted(project.started), lambda: project.ended)
            await old.aclose()


@promise("P22")
async def test_a_runner_that_drains_finishes_its_calls_and_takes_no_more() -> None:
    project = Project()
    async with site() as at, runner(at, project) as running:
        live = await at.open("wait")
        await happened(project.waits)
        tasks = TaskOwner()
        draining = tasks.start(running.drain())
        [link] = at.hub.runners
        await until(lambda: link.leaving, lambda: link.status)
        with pytest.raises(CallError, match="no runner"):
            await at.open("count")
        project.go.set()
        assert (await at.frames(live))[-1]["status"] == "completed"
        with anyio.fail_after(WAIT_S):
            await draining
        await until(lambda: not len(at.hub.runners), lambda: link.status)
        assert running.over.is_set() or await _soon(running.over)


@promise("P5", "P9")
async def test_opening_and_cancelling_in_haste_over_the_link_leaves_nothing() -> None:
    project = Project()
    async with site() as at, runner(at, project) as running:
        for number in range(300):
            live = await at.open("wait")
            for _ in range(number % 7):
                await asyncio.sleep(0)
            live.cancel(CancelReason.CALLER)
            if number % 50 == 49:
                at.cable.cut()
                await at.there()
        await at_rest(at.hub)
        [line] = running.lines
        await until(lambda: not line.calls, lambda: line.calls)
        assert sorted(project.ended) == sorted(project.started)
        assert data(await at.frames(await at.open("count"))) == list(range(ITEMS))


@promise("P14")
async def test_a_caller_that_sends_too_fast_is_told_and_loses_nothing_that_was_taken() -> None:
    project, go = Project(), asyncio.Event()

    @project.runtime.streaming_command("slow")
    async def slow(items: AsyncIterable[int]):
        await go.wait()
        async for item in items:
            yield {"i": item}

    async with site() as at, runner(at, project):
        live = await at.open("slow", more_input=True)
        taken, refused = [], set()
        for number in range(4 * MAX_WAITING):
            try:
                live.send(b"%d" % number)
                taken.append(number)
            except CallError as error:
                refused.add(error.code.value)
                go.set()
            await asyncio.sleep(0)
        assert refused == {"resource_exhausted"}
        assert len(taken) > MAX_WAITING  # there was room again
        live.end_input()
        frames = await at.frames(live)
        assert data(frames) == taken
        assert frames[-1]["status"] == "completed"


async def _soon(event: asyncio.Event) -> bool:
    await happened(event)
    return True


@promise("P5")
async def test_a_cancel_reaches_the_code_on_the_runner(anyio_backend: str) -> None:
    project = Project()
    async with site() as at, runner(at, project):
        live = await at.open("wait")
        await happened(project.waits)
        live.cancel(CancelReason.CALLER)
        await until(lambda: project.ended == [live.request_id], lambda: "it runs")
        await at_rest(at.hub)
