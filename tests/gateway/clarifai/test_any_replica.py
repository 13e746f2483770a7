"""Whatever a replica does, in whatever order: every call ends once, and nothing is held for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.clarifai.replicas import FakeReplica, Stream, replicas_of, said, text_of
from gateway.fakes import World, turns
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.errors import CallError
from penstock.gateway.clarifai.replica import Replica
from penstock.gateway.clarifai.streams import Phase
from penstock.gateway.hub import Hub
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.messages import CancelReason
from penstock.testing import FakeClock

ENDS = {"completed", "error", "cancelled"}
COMMANDS = ("toy.predict", "toy.generate", "toy.stream")


class AnyReplica(RuleBasedStateMachine):
    """One replica, and its callers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.calls: list[Live] = []

    def wait(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize()
    def come(self) -> None:
        self.wait(self._come())

    async def _come(self) -> None:
        limits = CallLimits(cancel_grace_s=2.0)
        self.hub = Hub(settings=GatewaySettings(), limits=limits, clock=self.clock)
        await self.hub.start()
        self.world = World(self.hub, self.clock)
        self.replicas = replicas_of(self.hub, self.clock)
        self.runner = FakeReplica(self.replicas, self.clock)
        await self.runner.come(2)

    def act(self, what: Callable[[], object]) -> None:
        """Do something where the event loop runs, and let it take its turns."""

        async def acting() -> None:
            with suppress(CallError):  # it is away, too many wait, or the input has ended
                what()
            await turns(8)

        self.wait(acting())

    def streams(self, *, with_item: bool = False) -> list[Stream]:
        """Those that the replica has not closed."""
        streams = [one for one in self.runner.streams if not one.lane._closed]
        return [one for one in streams if one.has_item] if with_item else streams

    # -- the replica ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.streams()) < 6)
    @rule()
    def opens(self) -> None:
        self.act(self.runner.open)

    @rule()
    def opens_control(self) -> None:
        self.act(self.runner.open_control)

    @precondition(lambda self: self.runner.control is not None)
    @rule()
    def loses_control(self) -> None:
        line, self.runner.control = self.runner.control, None
        if self.runner.who in self.replicas._known:
            self.act(lambda: self.runner.replica.close_control(line))

    @precondition(lambda self: self.streams(with_item=True))
    @rule(data=st.data(), what=st.sampled_from(("one", "two", "none", "failure", "foreign", "top")))
    def says(self, data: st.DataObject, what: str) -> None:
        stream = data.draw(st.sampled_from(self.streams(with_item=True)))
        item = stream.item.id
        message = {
            "one": said(item, "x"),
            "two": said(item, "x", "y"),
            "none": said(item),
            "failure": said(item, code=codes.FAILURE),
            "foreign": said("f" * 32, "x"),
            "top": said("", top=codes.RUNNER_PROCESSING_FAILED),
        }[what]
        self.act(lambda: stream.hear(message))

    @precondition(lambda self: self.streams())
    @rule(data=st.data(), bytes_=st.binary(max_size=8))
    def says_nonsense(self, data: st.DataObject, bytes_: bytes) -> None:
        stream = data.draw(st.sampled_from(self.streams()))
        self.act(lambda: stream.lane.heard(bytes_))

    @precondition(lambda self: self.streams())
    @rule(data=st.data(), clean=st.booleans())
    def ends(self, data: st.DataObject, clean: bool) -> None:
        stream = data.draw(st.sampled_from(self.streams()))
        self.act(stream.half_close if clean else stream.reset)

    # -- callers -------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.calls) < 8)
    @rule(command=st.sampled_from(COMMANDS), more=st.booleans())
    def calls_it(self, command: str, more: bool) -> None:
        given = {"input": b"{}", "more_input": more} if command == "toy.stream" else {"input": text_of("a")}
        with suppress(CallError):  # it is away, or too many wait
            self.calls.append(self.wait(self.world.call(command, **given)))
        self.act(lambda: None)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancels(self, data: st.DataObject) -> None:
        live = data.draw(st.sampled_from(self.calls))
        self.act(lambda: live.cancel(CancelReason.CALLER))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), item=st.sampled_from((b'"x"', b"7", None)))
    def sends(self, data: st.DataObject, item: bytes | None) -> None:
        live = data.draw(st.sampled_from(self.calls))
        inputs = live.inputs
        if inputs is not None:
            self.act(inputs.end if item is None else lambda: inputs.send(item))

    # -- the world -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.02, 1.0, 3.0, 45.0)))
    def time_passes(self, seconds: float) -> None:
        self.act(lambda: self.clock.advance(seconds))

    @rule(draining=st.booleans())
    def is_drained(self, draining: bool) -> None:
        for runner in self.hub.runners:
            self.act(partial(self.hub.set_draining, runner.name, draining))

    @invariant()
    def no_more_run_than_there_are_streams(self) -> None:
        if not hasattr(self, "hub"):
            return
        for runner in self.hub.runners:
            assert 0 <= runner.load <= len(self.calls)
            assert isinstance(runner, Replica)
            assert runner._calls.keys() <= runner._running.keys() | runner._waiting.keys()
            assert all(lane.stream.phase is Phase.BUSY for lane in runner._running.values())
        items = [stream.item.id for stream in self.runner.given()]
        assert len(set(items)) == len(items)  # no id is used twice

    def teardown(self) -> None:
        if hasattr(self, "hub"):
            self.wait(self._end())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def _end(self) -> None:
        for runner in self.hub.runners:
            self.hub.remove(runner.name)
        await turns()
        self.clock.advance(60)
        await turns()
        for live in self.calls:
            with anyio.fail_after(5):
                frames = await self.world.frames(live)
            assert [frame.status in ENDS for frame in frames] == [False] * (len(frames) - 1) + [True]
        await turns()
        assert not self.hub._working
        assert not any(one.running or one.waiting for one in self.hub._admissions.values())
        assert not self.hub.runners._waiters
        await self.hub.aclose()


TestAnyReplica = AnyReplica.TestCase
TestAnyReplica.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
