"""The stages of a cancel: in their order whatever the code does, and told of on the event loop only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.observer import Observer
from penstock.calls.waiting import wait_stopped
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, CancelTimes, Start
from penstock.runtime.app import App
from penstock.runtime.context import current_call
from penstock.runtime.interrupt import CallInterrupted
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio


class Stages(Observer):
    """Keeps which stages it was told of, how long after the cancel, and in which thread."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.threads: set[threading.Thread] = set()

    def _take(self, stage: str, after_s: float) -> None:
        self.told.append((stage, after_s))
        self.threads.add(threading.current_thread())

    def delivered(self, live: Live, after_s: float) -> None:
        self._take("delivered", after_s)

    def acknowledged(self, live: Live, after_s: float) -> None:
        self._take("acknowledged", after_s)

    def confirmed(self, live: Live, after_s: float) -> None:
        self._take("confirmed", after_s)

    def stopped(self, live: Live, after_s: float | None) -> None:
        assert after_s is not None
        self._take("stopped", after_s)

    def check(self, *stages: str) -> None:
        """Check that these were told, once each, in this order and on the event loop."""
        assert [stage for stage, _ in self.told] == list(stages)
        times = [after_s for _, after_s in self.told]
        assert times == sorted(times)
        assert self.threads == {threading.main_thread()}


def times_of(live: Live) -> CancelTimes:
    assert live.cut is not None
    times = live.cut.times()
    reached = [times.requested_at, times.delivered_at, times.acknowledged_at, times.freed_at]
    assert reached == sorted(moment for moment in reached if moment is not None)
    return times


async def stopped(live: Live) -> None:
    with anyio.fail_after(5):
        await wait_stopped(live)


class Gates:
    """What a command and its test tell one another, from any thread."""

    def __init__(self) -> None:
        loop, inside = asyncio.get_running_loop(), asyncio.Event()
        self.inside = inside
        self.enter: Callable[[], Any] = lambda: loop.call_soon_threadsafe(inside.set)
        self.go = threading.Event()

    async def entered(self) -> None:
        with anyio.fail_after(5):
            await self.inside.wait()


async def test_what_a_thread_says_is_told_on_the_loop_with_the_time_at_which_it_was_said() -> None:
    rt, gates, stages, left = Runtime(), Gates(), Stages(), threading.Event()

    @rt.command("predict")
    def predict() -> None:
        call = current_call()
        gates.enter()
        gates.go.wait(5)
        try:
            call.raise_if_cancelled()
        except CallInterrupted:
            left.set()
            call.upstream_confirmed()
            raise

    async with App(rt, observer=stages) as app:
        live = await app.open(Start(command="predict"), LOCAL)
        await gates.entered()
        live.cancel(CancelReason.CALLER)
        gates.go.set()
        assert left.wait(5)  # the loop is held here
        assert stages.told == []
        assert live.cut is not None
        said_by = live.cut.since()
        threading.Event().wait(0.05)
        await stopped(live)
        stages.check("delivered", "confirmed", "acknowledged", "stopped")
        assert stages.told[0][1] <= said_by < stages.told[2][1]
        times_of(live)


async def test_code_that_blocks_its_own_loop_has_not_felt_its_cancel() -> None:
    settings = {"predict": {"isolation": "thread"}}
    rt, gates, stages = Runtime(Manifest.model_validate({"commands": settings})), Gates(), Stages()

    @rt.command("predict")
    async def predict() -> None:
        gates.enter()
        gates.go.wait(5)
        await asyncio.Event().wait()

    async with App(rt, observer=stages) as app:
        live = await app.open(Start(command="predict"), LOCAL)
        await gates.entered()
        live.cancel(CancelReason.CALLER)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert live.ending is not None
        assert stages.told == []
        gates.go.set()
        await stopped(live)
        stages.check("delivered", "acknowledged", "stopped")


@pytest.mark.parametrize("how", ["passes", "raises", "returns", "raises at once"])
async def test_the_stages_are_in_order_however_the_code_leaves(how: str) -> None:
    rt, gates, stages = Runtime(), Gates(), Stages()

    @rt.command("predict")
    async def predict() -> None:
        if how == "raises at once":
            live.cancel(CancelReason.DEADLINE)  # as a budget does that is spent within its step
            raise ValueError("an author's mistake")
        gates.enter()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "passes":
                raise
            if how == "raises":
                raise ValueError("an author's mistake") from None

    async with App(rt, observer=stages) as app:
        live = await app.open(Start(command="predict"), LOCAL)
        assert isinstance(live, Live)
        if how != "raises at once":
            await gates.entered()
            live.cancel(CancelReason.CALLER)
        await stopped(live)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        stages.check("delivered", "acknowledged", "stopped")
        times_of(live)


async def test_a_call_cut_in_the_queue_goes_through_the_stages_too() -> None:
    rt, gates, stages = Runtime(), Gates(), Stages()

    @rt.command("predict", concurrency=1)
    async def predict() -> None:
        gates.enter()
        await asyncio.Event().wait()

    async with App(rt, observer=stages, limits=CallLimits()) as app:
        first = await app.open(Start(command="predict"), LOCAL)
        await gates.entered()
        live = await app.open(Start(command="predict"), LOCAL)
        live.cancel(CancelReason.CALLER)
        await stopped(live)
        stages.check("delivered", "acknowledged", "stopped")
        first.cancel(CancelReason.CALLER)
        await stopped(first)
