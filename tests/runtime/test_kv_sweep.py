"""Calls are cut at every turn of the event loop, running or waiting for room: no KV cache loses any."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import anyio.lowlevel
import pytest

from penstock.calls.live import Live
from penstock.calls.waiting import wait_ended
from penstock.engine_commands import serve_engine
from penstock.engines.scripted import ScriptedEngine
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

TURNS = 40
PROMPT = b'{"prompt": "one two three", "max_tokens": 100}'


class Project:
    """An engine with room for one call, its own commands, and one of an author's that asks it twice."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine(tokens=6, kv_tokens=112)
        self.runtime = Runtime()
        serve_engine(self.runtime, self.engine)

        @self.runtime.streaming_command("twice")
        async def twice(prompt: str, max_tokens: int) -> AsyncIterator[str]:
            for _ in range(2):
                async for piece in self.engine.stream_text(prompt, max_tokens=max_tokens):
                    yield piece

    async def check(self) -> None:
        """See that all is given back; a stream that an author did not close is closed by its loop, soon."""
        assert self.engine.kv is not None
        with anyio.fail_after(10):
            while self.engine.running or self.engine.kv.state().stats.handles:
                await anyio.lowlevel.checkpoint()
        state = self.engine.kv.state()
        assert (state.stats.handles, state.counted_blocks, state.waiting) == (0, 0, 0)
        with self.engine.kv.locked() as pool:
            pool.check()
            assert pool.available == pool.num_blocks


async def stopped(live: Live) -> None:
    """Return when nothing of a call runs any more."""
    await wait_ended(live)
    while not live.stopped:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("command", ["predict", "twice"])
@pytest.mark.parametrize("others", [0, 2], ids=["alone", "with others"])
@pytest.mark.parametrize(
    "reason", [CancelReason.CALLER, CancelReason.DISCONNECT, CancelReason.DEADLINE], ids=lambda r: r.value
)
async def test_a_call_that_is_cut_at_any_turn_leaves_nothing(
    command: str, others: int, reason: CancelReason
) -> None:
    project = Project()
    async with App(project.runtime) as app:
        for turns in range(TURNS):
            start = Start(command=command, input=PROMPT, is_stream=True)
            calls = [await app.open(start, LOCAL) for _ in range(1 + others)]
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            for call in reversed(calls):
                call.cancel(reason)
            with anyio.fail_after(10):
                for call in calls:
                    await stopped(call)
            await project.check()


@pytest.mark.parametrize("at", range(4))
async def test_a_call_whose_engine_fails_leaves_nothing(at: int) -> None:
    faults: list[Callable[[], ScriptedEngine]] = [
        lambda: ScriptedEngine(tokens=6, kv_tokens=112, fault="fail", after=2),
        lambda: ScriptedEngine(tokens=6, kv_tokens=112, fault="cut", after=2),
        lambda: ScriptedEngine(tokens=6, kv_tokens=112, fault="junk", after=2),
        lambda: ScriptedEngine(tokens=6, kv_tokens=112, fault="fail"),
    ]
    project = Project()
    project.engine = faults[at]()
    project.runtime = Runtime()
    serve_engine(project.runtime, project.engine)
    async with App(project.runtime) as app:
        calls = [await app.open(Start(command="predict", input=PROMPT), LOCAL) for _ in range(3)]
        with anyio.fail_after(10):
            for call in calls:
                await stopped(call)
        assert all(call.fault is not None for call in calls)
        await project.check()


async def test_an_engine_that_is_closed_under_its_calls_gets_all_back() -> None:
    project = Project()
    async with App(project.runtime) as app:
        calls = [
            await app.open(Start(command="predict", input=PROMPT, is_stream=True), LOCAL) for _ in range(3)
        ]
        await anyio.lowlevel.checkpoint()
        project.engine.close()
        with anyio.fail_after(10):
            for call in calls:
                await stopped(call)
    await project.check()
