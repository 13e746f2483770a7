"""Whatever happens to calls, in whatever order: each ends once, and stays as it ended.

Hypothesis submits, cancels, leaves, comes back, moves the clock and drains, over each way in.  Its steps are
plain functions, so the event loop runs only within them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from behaviour.checks import at_rest, check_calls, unread
from behaviour.connect import TERMINAL, Frame, Handle, Refused, Way
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S
from behaviour.seam import Switch, Watched
from behaviour.served import hosted
from penstock import Runtime, current_call
from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.protocol.dispatch import LOCAL
from penstock.runtime.app import App
from penstock.testing.clock import FakeClock

T = TypeVar("T")

LIMITS = CallLimits(drain_s=30.0, cancel_grace_s=5.0, window=2000, in_flight=6)
COMMANDS = ("gated", "gated_thread", "stubborn", "counts", "raises", "one_at_a_time")
OWN = frozenset({"completed", "command_failed"})  # how a call may end if nobody interferes
POLICIES = ("cancel", "continue", {"grace_s": 3})


class Models:
    """Commands that wait until a test lets them go on."""

    def __init__(self) -> None:
        self.runtime = rt = Runtime()
        self._gates: dict[str, asyncio.Event] = {}
        self._locks: dict[str, threading.Event] = {}
        self._open = False

        @rt.streaming_command("gated")
        async def gated():
            yield {"i": 0}
            await self._gate().wait()
            yield {"i": 1}

        @rt.streaming_command("gated_thread")
        def gated_thread():
            yield {"i": 0}
            self._lock().wait(WAIT_S)
            yield {"i": 1}

        @rt.streaming_command("stubborn")
        async def stubborn():
            gate = self._gate()
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    continue
            yield {"i": 0}

        @rt.streaming_command("counts")
        async def counts():
            for i in range(50):
                yield {"i": i, "filler": "x" * 100}

        @rt.command("raises")
        async def raises():
            await self._gate().wait()
            raise ValueError("as asked")

        @rt.command("one_at_a_time", concurrency=1, queue=1)
        async def one_at_a_time():
            await self._gate().wait()

    def release(self, request_id: str) -> None:
        self._gates.setdefault(request_id, asyncio.Event()).set()
        self._locks.setdefault(request_id, threading.Event()).set()

    def release_all(self) -> None:
        self._open = True
        for request_id in (*self._gates, *self._locks):
            self.release(request_id)

    def _gate(self) -> asyncio.Event:
        gate = self._gates.setdefault(current_call().request_id, asyncio.Event())
        if self._open:
            gate.set()
        return gate

    def _lock(self) -> threading.Event:
        lock = self._locks.setdefault(current_call().request_id, threading.Event())
        current_call().on_abort(lambda _: lock.set())
        if self._open:
            lock.set()
        return lock


class Lives(RuleBasedStateMachine):
    """The life of one app and its callers."""

    stage: Stage

    calls: Bundle[Handle] = Bundle("calls")

    @initialize()
    def start(self) -> None:
        self.models, self.clock = Models(), FakeClock()
        self.app = App(self.models.runtime, clock=self.clock, limits=LIMITS)
        self.run(self.app.start())
        self.dispatcher = Watched(self.app)
        self.way = self.stage.way_in(self.dispatcher, self.stage.address)
        self.stage.switch.inner = self.dispatcher
        self.tasks = TaskOwner()
        self.draining = False
        self.causes: dict[str, set[str]] = {}  # by request id: how it may end
        self.due: dict[str, float] = {}  # by request id: its deadline
        self.ended: dict[str, Frame] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.stage.run(work)

    @rule(
        target=calls,
        command=st.sampled_from(COMMANDS),
        policy=st.sampled_from(POLICIES),
        timeout=st.sampled_from([None, 4.0]),
        notes=st.booleans(),
    )
    def submit(self, command: str, policy: object, timeout: float | None, notes: bool) -> Handle | None:
        more = {} if timeout is None else {"timeout": timeout}
        call = self.run(_or_code(self.way.open(command, on_disconnect=policy, notes=notes, **more)))
        if isinstance(call, str):
            assert call == ("unavailable" if self.draining else "resource_exhausted")
            return None
        assert not self.draining
        call.policy = policy
        self.causes[call.request_id] = set(OWN)
        if timeout is not None:
            self.due[call.request_id] = self.clock.monotonic() + timeout
        return call

    @rule(call=calls)
    def release(self, call: Handle | None) -> None:
        if call is not None:
            self.models.release(call.request_id)

    @rule(call=calls)
    def cancel(self, call: Handle | None) -> None:
        if call is None:
            return
        outcome = self.run(call.cancel())
        if outcome == "cancelled":
            self.must_end(call.request_id, "caller")
        else:
            assert self.status(call.request_id) in TERMINAL

    def must_end(self, request_id: str, cause: str) -> None:
        """Note that a call that runs can no longer end by itself."""
        self.causes[request_id] = self.causes[request_id] - OWN | {cause}

    @rule(call=consumes(calls), how=st.sampled_from(["fin", "rst", "half"]))
    def leave(self, call: Handle | None, how: str) -> None:
        if call is None:
            return
        if call.policy != "continue":
            self.causes[call.request_id].add("disconnect")
        self.run(call.drop(how))
        self.run(unread(call))
        if call.policy == "cancel" and self.status(call.request_id) not in TERMINAL:
            self.must_end(call.request_id, "disconnect")

    @rule(call=calls, after=st.integers(-1, 3))
    def come_back(self, call: Handle | None, after: int) -> None:
        """Read from somewhere: to the end if there is one, else a frame that is there."""
        if call is None:
            return
        reader = self.run(_or_code(self.way.resume(call.request_id, after)))
        if isinstance(reader, str):
            assert reader == "invalid_argument"  # no such frame yet
            return
        record = self.run(self.way.record(call.request_id))
        if record["status"] in TERMINAL:
            assert all(frame["seq"] > after for frame in self.run(reader.frames()))
        elif record["next_seq"] > after + 1:
            assert self.run(reader.next_frame())["seq"] == after + 1
        if call.policy != "continue":
            self.causes[call.request_id].add("disconnect")  # it may be the last reader that goes here
        self.run(reader.drop())

    @rule(seconds=st.sampled_from([0.5, 3.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        now = self.clock.monotonic() + seconds
        for request_id in self.causes:
            if self.draining:
                self.causes[request_id].add("unavailable")
            if self.due.get(request_id, now + 1) > now or self.status(request_id) in TERMINAL:
                continue
            self.must_end(request_id, "deadline_exceeded")
        self.clock.advance(seconds)

    @rule(turns=st.integers(1, 20))
    def turn(self, turns: int) -> None:
        self.run(self._turn(turns))

    async def _turn(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    @precondition(lambda self: not self.draining and self.causes)
    @rule()
    def drain(self) -> None:
        self.draining = True
        self.run(self._drain())

    async def _drain(self) -> None:
        self.tasks.start(self.app.drain())
        await asyncio.sleep(0)

    @invariant()
    def what_has_ended_stays(self) -> None:
        for request_id in getattr(self, "causes", ()):
            record = self.run(self.way.record(request_id))
            before = self.ended.get(request_id)
            if before is not None:
                # What happens after the end may show in its cancel states, nowhere else.
                assert {**record, "cancel": None} == before
            elif record["status"] in TERMINAL:
                self.ended[request_id] = {**record, "cancel": None}

    def status(self, request_id: str) -> str:
        return self.run(self.way.record(request_id))["status"]

    def teardown(self) -> None:
        if hasattr(self, "app"):
            self.run(self._end())

    async def _end(self) -> None:
        self.models.release_all()
        for request_id in self.causes:
            if await self.way.cancel(request_id) == "cancelled":
                self.must_end(request_id, "caller")
        self.clock.advance(LIMITS.drain_s)
        await at_rest(self.app)
        await self.way.aclose()
        await check_calls(self.way)
        for record in self.dispatcher.tasks(LOCAL):  # all that are known; none was forgotten
            how = record.reason or record.code or record.status
            assert how in self.causes[record.request_id], self.causes[record.request_id]
        with anyio.fail_after(WAIT_S):
            await self.app.aclose()
        await self.tasks.aclose()


async def _or_code(opening: Coroutine[Any, Any, Handle]) -> Handle | str:
    """Return the call, or the code with which it was refused."""
    try:
        return await opening
    except Refused as refused:
        return refused.code


class Stage:
    """An event loop with a server, for one way in and many apps."""

    def __init__(self, way_in: type[Way]) -> None:
        self.way_in = way_in
        self.switch = Switch()
        self._loop = asyncio.new_event_loop()
        self._served = hosted(self.switch)
        _, self.address = self.run(self._served.__aenter__())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self._served.__aexit__(None, None, None))
        self._loop.close()


@pytest.fixture
def stage(way_in: type[Way]) -> Iterator[Stage]:
    """Build the stage that all examples of a way in share."""
    before = set(threading.enumerate())
    stage = Stage(way_in)
    yield stage
    stage.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)
        assert not thread.is_alive()


@promise("P1", "P2", "P3", "P9")
def test_every_call_ends_once_whatever_happens(stage: Stage) -> None:
    machine = type("LivesHere", (Lives,), {"stage": stage})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
