"""The cancellation sweep: a call is cut at every await of the executor in turn.

Whatever the place, exactly one terminal frame is last, and permits, tasks and queues are back to zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any

import anyio
import pytest

from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.protocol.messages import CancelReason
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio
KINDS = ("def", "async def", "generator", "async generator")
ENDS = {"completed", "error", "cancelled"}
MOST_AWAITS = 60


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that counts its awaits, and acts at one of them.

    Args:
        work: What runs.
        at: The number of the await, from 1.
        act: Called there, before the loop turns.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], at: int, act: Callable[[], object]) -> None:
        self._work = work
        self._at = at
        self._act = act
        self.awaits = 0

    def send(self, value: Any) -> Any:
        return self._paused(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._paused(self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError

    def _paused(self, waits_for: Any) -> Any:
        self.awaits += 1
        if self.awaits == self._at:
            self._act()
        return waits_for


class Sweep:
    """Starts the tasks of an app so that the first call is cut at its ``at``-th await."""

    def __init__(self, tasks: TaskOwner, at: int, soon: bool) -> None:
        self._start = tasks.start
        self._at = at
        self._soon = soon
        self.live: Live | None = None
        self.steps: Stepped | None = None
        tasks.start = self.start  # type: ignore[method-assign]

    def start(self, work: Any, **more: Any) -> Any:
        if self.steps is not None:
            return self._start(work, **more)
        self.steps = Stepped(work, self._at, self.cut)
        return self._start(self.steps, **more)

    def cut(self) -> None:
        if self._soon:
            asyncio.get_running_loop().call_soon(self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        assert self.live is not None
        self.live.cancel(CancelReason.CALLER)


def project(kind: str, closed: list[str]) -> Runtime:
    """Return a project whose `predict` takes state, gives three items, and says when it was left."""
    rt = Runtime()

    @rt.command("initialize")
    async def initialize() -> dict[str, object]:
        await asyncio.sleep(0)
        return {"tool": object()}

    if kind == "def":

        @rt.command("predict", concurrency=1)
        def value(tool=None) -> int:  # type: ignore[no-untyped-def]
            closed.append("ran")
            return 1

    elif kind == "async def":

        @rt.command("predict", concurrency=1)
        async def awaitable(tool=None) -> int:  # type: ignore[no-untyped-def]
            try:
                for _ in range(3):
                    await asyncio.sleep(0)
                return 1
            finally:
                closed.append("ran")
                await asyncio.sleep(0)

    elif kind == "generator":

        @rt.streaming_command("predict", concurrency=1)
        def generator(tool=None) -> Iterator[int]:  # type: ignore[no-untyped-def]
            try:
                yield from range(3)
            finally:
                closed.append("ran")

    else:

        @rt.streaming_command("predict", concurrency=1)
        async def async_generator(tool=None) -> AsyncIterator[int]:  # type: ignore[no-untyped-def]
            try:
                for i in range(3):
                    yield i
                    await asyncio.sleep(0)
            finally:
                closed.append("ran")
                await asyncio.sleep(0)

    return rt


@pytest.mark.parametrize("soon", [False, True], ids=["at the await", "one step later"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_may_be_cut_at_every_await(serve: Any, kind: str, soon: bool) -> None:
    outcomes: list[str] = []
    for at in range(1, MOST_AWAITS):
        closed: list[str] = []
        async with serve(project(kind, closed)) as served:
            sweep = Sweep(served.app._tasks, at, soon)
            live = sweep.live = await served.open()
            frames = await served.frames(live)
            await served.settled()
            assert [f.status for f in frames if f.status in ENDS] == [frames[-1].status]
            assert [f.seq for f in frames] == list(range(len(frames)))
            assert served.permits == 0
            assert served.app._working == set()
            assert served.app._state.current.holders == 0
            assert frames[-1].status == "completed" or live.cancel_reason is CancelReason.CALLER
            # The one permit is free and the app is whole: the next call runs to its end.
            again = await served.run()
            assert again[-1].status == "completed"
        outcomes.append(frames[-1].status)
        assert sweep.steps is not None
        if sweep.steps.awaits < at:
            break
    else:
        pytest.fail(f"after {MOST_AWAITS} awaits the sweep had not come to the end")
    assert outcomes[0] == "cancelled"
    assert outcomes[-1] == "completed"
    assert len(outcomes) > 2


@pytest.mark.parametrize("kind", KINDS)
async def test_author_code_is_left_through_its_finally_exactly_once(serve: Any, kind: str) -> None:
    """Cut between any two items: what was begun is ended, once."""
    for at in range(1, 12):
        closed: list[str] = []
        async with serve(project(kind, closed)) as served:
            await served.run("initialize")
            sweep = Sweep(served.app._tasks, at, False)
            live = sweep.live = await served.open()
            with anyio.fail_after(5):
                await served.frames(live)
                await served.settled()
        assert len(closed) <= 1
        if live.ending is not None and live.cancel_reason is None:
            assert closed == ["ran"]
