"""The scripted engine does what its script says, the faults included."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import anyio
import pytest

from penstock import engines
from penstock.engines.scripted import Fault, ScriptedEngine
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineRequest, Sampling
from penstock.testing import check_engine, check_events

pytestmark = pytest.mark.anyio


def request(max_tokens: int = 100, **sampling: object) -> EngineRequest:
    return EngineRequest(
        request_id="r",
        trace_id="t",
        model="m",
        prompt="two words",
        max_tokens=max_tokens,
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
    )


async def run(engine: ScriptedEngine, asked: EngineRequest | None = None) -> list[EngineEvent]:
    return [event async for event in engine.generate(asked or request())]


def chunks(events: list[EngineEvent]) -> list[str]:
    return [event.chunk for event in events if isinstance(event, EngineDelta)]


async def test_it_behaves_as_an_engine_should() -> None:
    await check_engine(ScriptedEngine(), timeout_s=5)


async def test_it_says_the_pieces_it_was_given() -> None:
    events = await run(ScriptedEngine(["Hel", "lo", "!"]))
    assert chunks(events) == ["Hel", "lo", "!"]
    end = check_events(events, request(), "scripted")
    assert (end.output_text, end.output_tokens, end.finish_reason) == ("Hello!", [0, 1, 2], "stop")


async def test_a_text_is_split_at_its_spaces_and_stays_whole() -> None:
    assert chunks(await run(ScriptedEngine("  one two\nthree "))) == ["  one", " two", "\nthree", " "]


async def test_max_tokens_cuts_with_length() -> None:
    end = (await run(ScriptedEngine(tokens=10), request(max_tokens=4)))[-1]
    assert isinstance(end, EngineEnd)
    assert (len(end.output_tokens), end.finish_reason) == (4, "length")


async def test_a_stop_string_across_pieces_cuts_before_it() -> None:
    assert chunks(await run(ScriptedEngine(["ab", "cd", "ef"]), request(stop=("bcd", "f")))) == ["a"]


async def test_delays_come_before_each_burst_and_need_no_waiting() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await run(ScriptedEngine(tokens=5, delay_s=3600, burst=2, sleep=sleep))
    assert slept == [3600, 3600, 3600]


async def test_a_ready_stream_lets_the_loop_run() -> None:
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await run(ScriptedEngine(tokens=2000), request(max_tokens=2000))
        tasks.cancel_scope.cancel()
    assert others >= 5


async def test_stall_waits_until_it_is_cancelled() -> None:
    engine, seen = ScriptedEngine(tokens=5, fault="stall", after=2), []
    async with aclosing(engine.generate(request())) as events:
        with anyio.move_on_after(0.05) as scope:
            async for event in events:
                seen.append(event)
    assert scope.cancelled_caught
    assert len(chunks(seen)) == 2
    assert (engine.started, engine.cancelled, engine.finished, engine.running) == (1, 1, 0, 0)


async def test_fail_ends_with_an_error() -> None:
    events = await run(ScriptedEngine(tokens=5, fault="fail", after=2))
    end = check_events(events, request(), "scripted")
    assert end.finish_reason == "error"
    assert end.error is not None
    assert end.error.code == "upstream_failed"
    assert len(chunks(events)) == 2


async def test_cut_ends_without_an_end() -> None:
    engine = ScriptedEngine(tokens=5, fault="cut", after=2)
    assert [type(event).__name__ for event in await run(engine)] == ["EngineStart", *["EngineDelta"] * 2]
    with pytest.raises(CallError, match="without an end event"):
        [piece async for piece in engine.stream_text("x")]


async def test_junk_yields_what_is_no_event() -> None:
    assert {"event": "gibberish"} in await run(ScriptedEngine(tokens=5, fault="junk", after=1))


async def test_ignore_cancel_works_on_until_released() -> None:
    engine = ScriptedEngine(tokens=50, fault="ignore_cancel")
    events = engine.generate(request())
    await anext(events)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.aclose)
        await anyio.wait_all_tasks_blocked()
        assert (engine.running, engine.cancelled) == (1, 0)
        engine.release()
    assert (engine.running, engine.cancelled) == (0, 1)


async def test_it_counts_what_it_did() -> None:
    engine = ScriptedEngine(tokens=3)
    await run(engine)
    events = engine.generate(request())
    await anext(events)
    assert engine.running == 1
    await events.aclose()
    assert (engine.started, engine.finished, engine.cancelled, engine.running) == (2, 1, 1, 0)


async def test_closed_it_takes_nothing_more() -> None:
    engine = ScriptedEngine()
    await engine.aclose()
    with pytest.raises(CallError) as raised:
        await run(engine)
    assert raised.value.code is ErrorCode.UNAVAILABLE


async def test_a_spec_is_a_script() -> None:
    engine = engines.open("scripted:text=a b c,capacity=7,fault=fail,after=2")
    assert engine.capacity == 7
    assert isinstance(engine, ScriptedEngine)
    assert chunks(await run(engine)) == ["a", " b"]


@pytest.mark.parametrize("rest", ["tokens", "tokens=x", "tokens=-1", "speed=3", "fault=explode"])
def test_a_wrong_spec_is_refused(rest: str) -> None:
    with pytest.raises(CallError, match=r"^scripted: ") as raised:
        engines.open(f"scripted:{rest}")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_spec_and_options_together_are_refused() -> None:
    with pytest.raises(CallError, match="not both"):
        engines.open("scripted:tokens=1", tokens=2)


async def test_metrics_come_from_its_clock() -> None:
    ticks = iter([100.0, 100.5, 102.5])
    end = (await run(ScriptedEngine(tokens=4, clock=lambda: next(ticks))))[-1]
    assert isinstance(end, EngineEnd)
    assert (end.metrics.ttft_ms, end.metrics.tpot_ms, end.metrics.throughput_tps) == (500.0, 500.0, 2.0)
    assert end.metrics.kv_used_tokens == 6


def test_every_fault_can_be_named_in_a_spec() -> None:
    for fault in ("stall", "fail", "ignore_cancel", "cut", "junk"):
        named: Fault = fault  # type: ignore[assignment]
        assert isinstance(engines.open(f"scripted:fault={named}"), ScriptedEngine)
