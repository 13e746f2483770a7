"""The cancel matrix: whatever cuts a call, wherever it is and whoever does its work, the same holds.

Each cell has its order under control: the call stands at its point before the trigger, and nothing goes on by
itself.  That of llama.cpp is the real model, held between two of its tokens; SGLang, OpenAI's protocol and
Anthropic are played by servers that know what reached them.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from behaviour.checks import Resources, at_rest, permits
from behaviour.connect import Handle, Way
from behaviour.cutting import (
    DEADLINE_S,
    LIMITS,
    PLAIN,
    POINTS,
    TRIGGERS,
    Point,
    Project,
    Trigger,
    new_prompt,
    outcome_of,
)
from behaviour.cutting_engines import ENGINES, Below
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S, Address
from behaviour.seam import Switch
from behaviour.served import Connect
from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_ended, wait_stopped
from penstock.protocol.dispatch import LOCAL
from penstock.runtime.abort import wait_for_aborts
from penstock.testing import FakeClock

pytestmark = pytest.mark.anyio

triggers = pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.name)
points = pytest.mark.parametrize("point", POINTS)


class Cell:
    """One way to cut a call of a project at one point."""

    def __init__(
        self, project: Project, trigger: Trigger, point: Point, server: tuple[Switch, Address]
    ) -> None:
        self.project = project
        self.trigger = trigger
        self.point = point
        self.clock = FakeClock()
        self.prompt = new_prompt()
        self._server = server
        self._tasks = TaskOwner()

    async def run(self) -> None:
        """Cut the call, and check all that must hold."""
        before = Resources()
        connect = Connect(self.trigger.way, *self._server)
        async with connect(self.project.runtime, clock=self.clock, limits=LIMITS) as way, self._held(way):
            call = await self._open(way, self.point, self.prompt)
            live = way.dispatcher.find(call.request_id, LOCAL)
            assert isinstance(live, Live)
            await self._arrive(call)
            await self.trigger.pull(way, call, self.clock, self._tasks)
            if self.point == "after":
                await self._unchanged(way, call, live)
            else:
                await self._cut(way, call, live)
        await self._tasks.aclose()
        await self.project.check(self.prompt, call.request_id, self.point)
        await before.check_level()

    async def _open(self, way: Way, point: Point, prompt: str) -> Handle:
        given = {"point": point, "prompt": prompt}
        return await way.open("predict", given, timeout=DEADLINE_S * (1 if prompt == self.prompt else 10))

    @asynccontextmanager
    async def _held(self, way: Way) -> AsyncIterator[None]:
        """Have the one permit taken by another call, if this one is to wait for it."""
        self.project.prepare("before" if self.point == "queued" else self.point)
        if self.point != "queued":
            yield
            return
        holder = await self._open(way, "before", new_prompt())
        await self.project.arrived("before", holder)
        yield
        await way.cancel(holder.request_id)
        self.project.let_go()
        await at_rest(way.dispatcher.inner)

    async def _arrive(self, call: Handle) -> None:
        if self.point == "queued":
            await call.until("accepted")
        elif self.point == "after":
            assert (await call.last())["status"] == "completed"
        else:
            await self.project.arrived(self.point, call)

    async def _cut(self, way: Way, call: Handle, live: Live) -> None:
        with anyio.fail_after(WAIT_S):
            await wait_ended(live)
        frame = await call.last() if self.trigger.heard else (await way.log(call.request_id))[-1]
        assert outcome_of(frame) == self.trigger.ends
        if self.point in self.project.lingers:
            await self._lingers(way, call, live)
        with anyio.fail_after(WAIT_S):
            await wait_stopped(live)
        if self.point != "queued":
            assert permits(way.dispatcher.inner).running == 0
        await self._stages(way, call)
        self._called_back(call, 1)

    async def _lingers(self, way: Way, call: Handle, live: Live) -> None:
        """Check that its work has its permit until it stops, though it was answered."""
        assert permits(way.dispatcher.inner).running == 1
        assert not live.stopped
        record = await way.record(call.request_id)
        assert not {"acknowledged_at", "upstream_confirmed_at", "freed_at"} & record["cancel"].keys()
        self.project.let_go()

    async def _stages(self, way: Way, call: Handle) -> None:
        record = await way.record(call.request_id)
        assert (record["status"], record["cancel"]["stuck"]) == (self.trigger.ends[0], False)
        confirmed = record["cancel"].pop("upstream_confirmed_at", None)
        names = ("requested_at", "delivered_at", "acknowledged_at", "freed_at")
        times = [record["cancel"][name] for name in names]
        assert times == sorted(times)
        assert (confirmed is not None) == (self.project.confirms and self.point in ("before", "mid"))
        assert confirmed is None or times[1] <= confirmed <= times[3]

    async def _unchanged(self, way: Way, call: Handle, live: Live) -> None:
        """Check that a call which had ended did not hear of it."""
        if self.trigger.name in ("api", "message"):
            assert await call.cancel() == "already_finished"
        record = await way.record(call.request_id)
        assert (record["status"], "cancel" in record) == ("completed", False)
        assert live.cancel_reason is None
        self._called_back(call, 0)

    def _called_back(self, call: Handle, times: int) -> None:
        """Check that each abort callback ran so often, and not on the event loop."""
        wait_for_aborts()
        began = self.point != "queued"
        assert self.project.told[call.request_id] == times
        assert self.project.own[call.request_id] == (times if began else 0)
        assert threading.main_thread() not in self.project.threads


@promise("P1", "P4", "P5", "P9")
@pytest.mark.parametrize("kind", PLAIN)
@triggers
@points
async def test_a_call_may_be_cut_anywhere(
    server: tuple[Switch, Address], kind: type[Project], trigger: Trigger, point: Point
) -> None:
    await Cell(kind(), trigger, point, server).run()


@pytest.fixture(scope="module")
async def below(anyio_backend: object) -> AsyncIterator[Below]:
    """What is below the engines: each is started when it is first asked for."""
    async with AsyncExitStack() as stack:
        yield Below(stack)


@promise("P1", "P4", "P5", "P9", "P40")
@pytest.mark.parametrize("engine", ENGINES)
@triggers
@points
async def test_the_work_of_an_engine_ends_with_its_call(
    server: tuple[Switch, Address], below: Below, engine: str, trigger: Trigger, point: Point
) -> None:
    await Cell(await below.project(engine), trigger, point, server).run()
