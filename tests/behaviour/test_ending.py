"""How calls end: once, last, and for good."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from behaviour.checks import check_log, happened, until
from behaviour.connect import Handle, Way
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import CallError, CommandError, Runtime
from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.protocol.call import CallLog, State
from penstock.protocol.messages import CancelReason, CancelTimes, FrameWriter, WireForm
from penstock.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

OUTCOMES: dict[str, tuple[Callable[[], Any], str, str | None]] = {
    "returns": (lambda: {"n": 1}, "completed", None),
    "raises": (lambda: [].pop(), "error", "command_failed"),
    "says why": (lambda: _raise(CommandError("no such story")), "error", "command_failed"),
    "is busy": (lambda: _raise(CallError("upstream is busy", "unavailable")), "error", "unavailable"),
    "is no JSON": (lambda: {"n": float("nan")}, "error", "invalid_output"),
}


def _raise(error: Exception) -> None:
    raise error


def _every_kind(act: Callable[[], Any]) -> Runtime:
    rt = Runtime()

    @rt.command("function")
    def function():
        return act()

    @rt.command("coroutine")
    async def coroutine():
        return act()

    @rt.streaming_command("generator")
    def generator():
        yield {"n": 0}
        yield act()

    @rt.streaming_command("async_generator")
    async def async_generator():
        yield {"n": 0}
        yield act()

    return rt


@promise("P1", "P3")
@pytest.mark.parametrize("command", ["function", "coroutine", "generator", "async_generator"])
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_every_kind_of_command_ends_once(connect: Connect, command: str, outcome: str) -> None:
    act, status, code = OUTCOMES[outcome]
    async with connect(_every_kind(act)) as way:
        call = await way.open(command)
        frames = await call.frames()
        assert (frames[-1]["status"], frames[-1].get("code")) == (status, code)
        log = await way.log(call.request_id)
        items = 2 if status == "completed" else 1
        streamed = ["streaming"] * items if "generator" in command else []
        assert [frame["status"] for frame in log] == ["accepted", *streamed, status]
        assert frames == (log if way.streams else log[-1:])


@promise("P1")
async def test_the_terminal_frame_gets_past_a_full_window(connect: Connect) -> None:
    rt = Runtime()
    ahead, cut = asyncio.Event(), asyncio.Event()

    @rt.streaming_command("flood")
    async def flood():
        try:
            while True:
                yield {"text": "x" * 4000}
                ahead.set()
                yield {"text": "x" * 12_000}
        finally:
            cut.set()

    async with connect(rt, limits=CallLimits(window=16_000)) as way:
        call = await way.open("flood")  # and nobody reads it
        await happened(ahead)
        assert await call.cancel() == "cancelled"
        await happened(cut)
        assert (await call.last())["status"] == "cancelled"


EXTERNAL = ("caller", "deadline", "disconnect", "drain")
OWN = ("completes", "fails")
PAIRS = [
    *((first, second) for first in OWN for second in EXTERNAL),
    *((first, second) for first in EXTERNAL for second in (*EXTERNAL, *OWN)),
]
SHOWN = {
    "caller": ("cancelled", "caller", None),
    "disconnect": ("cancelled", "disconnect", None),
    "deadline": ("error", None, "deadline_exceeded"),
    "drain": ("error", None, "unavailable"),
    "completes": ("completed", None, None),
    "fails": ("error", None, "command_failed"),
}
DEADLINE_S = 2.0


class Endings:
    """A call that ends, or is ended, as a test says; cancelling it alone does not stop it."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.clock = FakeClock()
        self.limits = CallLimits(drain_s=1.0)
        self.waits, self.cut = asyncio.Event(), asyncio.Event()
        self._go: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks = TaskOwner()
        self.runtime.streaming_command("stubborn")(self._stubborn)

    async def _stubborn(self):
        yield {"n": 0}
        self.waits.set()
        while not self._go.done():
            try:
                await asyncio.shield(self._go)
            except asyncio.CancelledError:
                self.cut.set()
        if self._go.result() == "fails":
            raise ValueError("as asked")

    async def bring(self, end: str, way: Way, call: Handle) -> None:
        if end in OWN:
            self.let_go(end)
        elif end == "caller":
            await call.cancel()
        elif end == "disconnect":
            await call.drop()
        elif end == "deadline":
            self.clock.advance(DEADLINE_S)
        else:
            before = self.clock.pending
            self._tasks.start(way.dispatcher.inner.drain())
            await until(lambda: self.clock.pending > before, lambda: "not draining")
            self.clock.advance(self.limits.drain_s)

    def let_go(self, end: str = "completes") -> None:
        if not self._go.done():
            self._go.set_result(end)

    async def aclose(self) -> None:
        await self._tasks.aclose()


@promise("P2")
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
async def test_the_first_end_stays(connect: Connect, first: str, second: str) -> None:
    endings = Endings()
    async with connect(endings.runtime, limits=endings.limits, clock=endings.clock) as way:
        timeout = DEADLINE_S if "deadline" in (first, second) else 100.0
        call = await way.open("stubborn", timeout=timeout)
        await happened(endings.waits)
        await endings.bring(first, way, call)
        if first in OWN:
            ended = (await way.log(call.request_id))[-1]
        else:
            await happened(endings.cut)
        await endings.bring(second, way, call)
        endings.let_go()
        log = await way.log(call.request_id)
        last = log[-1]
        assert (last["status"], last.get("reason"), last.get("code")) == SHOWN[first]
        assert first not in OWN or last == ended
        assert (await way.record(call.request_id))["status"] == last["status"]
        await endings.aclose()


@promise("P2")
async def test_a_race_between_two_threads_has_one_winner() -> None:
    rounds = 10_000
    racers = [_complete, _fail, _cancel]
    logs = [CallLog(FrameWriter(WireForm.V2, "race", f"t{i}", "0" * 32), 1.0) for i in range(rounds)]
    won: list[list[bool]] = [[], []]
    start = threading.Barrier(2)

    def race(side: int) -> None:
        for number, log in enumerate(logs):
            start.wait()
            won[side].append(racers[(number // 3**side) % 3](log))

    threads = [threading.Thread(target=race, args=(side,)) for side in (0, 1)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for log, one, other in zip(logs, *won, strict=True):
        assert one is not other
        assert log.late_ends == 1
        check_log(log.read(-1, 1_000_000))
        assert json.loads(log.read(0, 1)[0])["status"] == log.state.label
    assert min(sum(side) for side in won) > 0, "one side never won: no race"


def _complete(log: CallLog) -> bool:
    return log.complete({"n": 1}, {}, 2.0, has_answer=True)


def _fail(log: CallLog) -> bool:
    return log.fail(CallError("failed"), 2.0)


def _cancel(log: CallLog) -> bool:
    return log.cancel(CancelReason.CALLER, CancelTimes(2.0), 2.0)


@promise("P2", "P3")
async def test_nothing_can_be_added_to_a_log_that_has_ended() -> None:
    log = CallLog(FrameWriter(WireForm.V2, "race", "t", "0" * 32), 1.0)
    assert _complete(log)
    before = log.read(-1, 1_000_000)
    with pytest.raises(Exception, match="not allowed in state completed"):
        log.item({"n": 2}, 3.0)
    with pytest.raises(Exception, match="not allowed in state completed"):
        log.note("progress", {"fraction": 1.0, "message": ""}, 3.0)
    assert not _cancel(log)
    assert log.read(-1, 1_000_000) == before
    assert log.state is State.COMPLETED
