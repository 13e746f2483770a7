"""Runners that dial real gateways: several, many at once, and those that want them no more."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from behaviour.checks import happened, until
from behaviour.sites import ITEMS, Project, data, runner, site
from penstock.runner.runner import Runner
from penstock.runtime.app import App

pytestmark = pytest.mark.anyio


async def test_a_runner_that_was_removed_does_not_dial_again() -> None:
    async with site() as at, runner(at, Project()) as running:
        at.hub.remove("one")
        await happened(running.over)
        assert at.cable.connections == 1


async def test_a_gateway_that_is_gone_for_good_has_its_calls_cancelled() -> None:
    project = Project()
    async with site(resume_s=0.2) as at, runner(at, project):
        live = await at.open("wait")
        await happened(project.waits)
        at.cable.refuses = True
        at.cable.cut()
        await until(lambda: project.ended == [live.request_id], lambda: "it runs")
        assert (await at.frames(live))[-1]["code"] == "unavailable"


async def test_one_runner_serves_several_gateways() -> None:
    project = Project()
    async with site() as left, site() as right:
        urls = [left.cable.url, right.cable.url]
        async with Runner(App(project.runtime), urls, "one"):
            for at in (left, right):
                await at.there()
                assert data(await at.frames(await at.open("count"))) == list(range(ITEMS))


async def test_a_hundred_runners_that_lose_their_links_at_once_come_back() -> None:
    project = Project()
    async with site() as at:
        runners = [Runner(App(project.runtime), [at.cable.url], f"r{number}") for number in range(100)]
        async with anyio.create_task_group() as group:
            for each in runners:
                group.start_soon(each.start)
        await at.there(100)
        live = await at.open("wait")
        await happened(project.waits)
        at.cable.cut()
        await at.there(100)
        project.go.set()
        assert data(await at.frames(live)) == [0, 1]
        async with anyio.create_task_group() as group:
            for each in runners:
                group.start_soon(each.aclose)
