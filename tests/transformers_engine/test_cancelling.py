"""Several calls at once, and calls whose reader leaves: the work stops, and the slot is free."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from penstock.calls import ambient
from penstock.engines.transformers import TransformersEngine
from penstock.engines.transformers_model import TransformersSettings
from penstock.errors import CallError
from penstock.protocol.events import EngineEnd, EngineReport, EngineRequest, EngineStart
from transformers_engine.asking import (
    Watched,
    end_of,
    model_of,
    request,
    run,
    wait_for,
)

pytestmark = pytest.mark.anyio


async def test_as_many_as_there_are_slots_run_and_the_others_wait(
    tiny: TransformersEngine, watched: Watched
) -> None:
    ends: list[EngineEnd] = []

    async def one(asked: EngineRequest) -> None:
        ends.append(await end_of(tiny, asked))

    asked = [request(f"the river {number}") for number in range(6)]
    async with anyio.create_task_group() as tasks:
        for which in asked:
            tasks.start_soon(one, which)
    assert {end.request_id for end in ends} == {which.request_id for which in asked}
    assert watched.most_inside == tiny.capacity == 2


class Call:
    """Stands in for the call an engine works for."""

    request_id = "0" * 32

    def __init__(self, inside: Callable[[], int]) -> None:
        self._inside = inside
        self.confirmed_with: list[int] = []

    metadata: Mapping[str, str] = {}

    def remaining(self) -> None:
        return None

    def report(self, report: EngineReport) -> None:
        """Nothing to report to."""

    def upstream_confirmed(self) -> None:
        self.confirmed_with.append(self._inside())


async def cancelled_at(
    tiny: TransformersEngine, watched: Watched, asked: EngineRequest, hold: Callable[[int, int], bool]
) -> Call:
    """Cancel a reader while the model is held at a layer; the model goes on only then."""
    call = Call(lambda: watched.inside)
    watched.hold_at = hold
    left = anyio.Event()

    async def read(scope: anyio.CancelScope) -> None:
        ambient.current.set(call)
        with scope:
            async with aclosing(tiny.generate(asked)) as events:
                async for _ in events:
                    pass
        left.set()

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, scope)
        await wait_for(watched.held)
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        # It waits for the work: the slot is not free yet.
        assert not left.is_set()
        assert watched.inside == 1
        watched.hold_at = lambda layer, tokens: False
        watched.go_on.set()
        with anyio.fail_after(20):
            await left.wait()
    assert scope.cancelled_caught
    return call


@pytest.mark.parametrize("layer", [0, 1])
async def test_a_cancel_in_a_prompt_is_heard_at_the_next_layer(
    tiny: TransformersEngine, watched: Watched, layer: int
) -> None:
    call = await cancelled_at(tiny, watched, request("a" * 300), lambda at, _: at == layer)
    # After the last layer, the token is there and nothing more is computed.
    assert watched.ran == list(range(layer + 1))
    assert call.confirmed_with == [0]
    assert (await end_of(tiny, request(max_tokens=2))).finish_reason == "length"


async def test_a_cancel_between_tokens_stops_before_the_next(
    tiny: TransformersEngine, watched: Watched
) -> None:
    def later(layer: int, tokens: int) -> bool:
        return layer == 0 and tokens == 1 and len(watched.ran) > 20

    call = await cancelled_at(tiny, watched, request("aaa", max_tokens=400), later)
    assert watched.ran[-1] == 0
    assert len(watched.ran) < 25
    assert call.confirmed_with == [0]


async def test_a_cancel_in_the_queue_never_starts(tiny: TransformersEngine, watched: Watched) -> None:
    watched.hold_at = lambda layer, tokens: True
    call = Call(lambda: watched.inside)
    busy = [tiny.generate(request(max_tokens=400)) for _ in range(tiny.capacity)]
    for events in busy:
        assert type(await anext(events)) is EngineStart
    token = ambient.current.set(call)
    waiting = tiny.generate(request())
    with anyio.move_on_after(0.05) as scope:
        await anext(waiting)
    ambient.current.reset(token)
    assert scope.cancelled_caught
    assert len(call.confirmed_with) == 1
    watched.go_on.set()
    for events in busy:
        await events.aclose()
    assert (watched.calls, watched.inside) == (tiny.capacity, 0)


async def test_leaving_after_any_event_stops_the_work(tiny: TransformersEngine, watched: Watched) -> None:
    whole = await run(tiny, request(max_tokens=12))
    for seen in range(len(whole) + 1):
        call = Call(lambda: watched.inside)
        token = ambient.current.set(call)
        events = tiny.generate(request(max_tokens=12))
        got = [await anext(events) for _ in range(seen)]
        await events.aclose()
        ambient.current.reset(token)
        assert [type(event) for event in got] == [type(event) for event in whole[:seen]]
        # One that was never begun has nothing to confirm.
        assert call.confirmed_with == ([0] if seen else [])
    assert (watched.inside, watched.calls) == (0, len(whole) + 1)


async def test_a_reader_that_leaves_after_the_end_confirms_nothing_late(tiny: TransformersEngine) -> None:
    call = Call(lambda: 0)
    token = ambient.current.set(call)
    await run(tiny, request(max_tokens=3))
    ambient.current.reset(token)
    assert call.confirmed_with == []


async def test_a_reader_that_does_not_read_is_waited_for_and_can_leave(
    tiny: TransformersEngine, watched: Watched
) -> None:
    events = tiny.generate(request("a", max_tokens=500))
    await anext(events)
    with anyio.fail_after(20):
        await events.aclose()
    assert watched.inside == 0


async def test_closing_ends_calls_in_flight_and_leaves_nothing(folder: Path) -> None:
    before = threading.active_count()
    engine = TransformersEngine(folder, "small", TransformersSettings(slots=1))
    running, waiting = engine.generate(request(max_tokens=490)), engine.generate(request())
    await anext(running)

    async def refused() -> None:
        with pytest.raises(CallError, match="is closed"):
            await anext(waiting)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refused)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(engine.aclose)
        rest = [event async for event in running]
    end = rest[-1]
    assert isinstance(end, EngineEnd)
    assert end.error is not None
    assert (end.finish_reason, end.error.code) == ("error", "unavailable")
    assert threading.active_count() <= before + 1  # the one asyncio keeps for aclose
    engine.close()
    with pytest.raises(CallError, match="is closed"):
        await run(engine, request())


def test_it_serves_one_event_loop_after_another_also_when_one_goes_away(
    tiny: TransformersEngine, watched: Watched
) -> None:
    async def leave() -> None:
        await anext(tiny.generate(request("a", max_tokens=500)))

    for _ in range(tiny.capacity + 1):
        asyncio.run(leave())
    assert asyncio.run(end_of(tiny, request(max_tokens=2))).finish_reason == "length"
    assert watched.inside == 0


def test_an_engine_nobody_holds_frees_its_model(folder: Path) -> None:
    engine = TransformersEngine(folder, "small")
    model = weakref.ref(model_of(engine))
    assert asyncio.run(end_of(engine, request(max_tokens=2))).finish_reason == "length"
    del engine
    gc.collect()
    assert model() is None
