"""A check for any engine: run it in the tests of an adapter.

::

    @pytest.mark.anyio
    async def test_my_engine():
        await check_engine(MyEngine())
"""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import anyio

from penstock.engines.base import Engine
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import (
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineRequest,
    EngineStart,
    EventMetrics,
    EventTimestamps,
)

_PROMPT = "Tell me a long story about a fox who counts boats."
_RATES = ("error_rate", "prefix_hit_rate", "spec_accept_rate")
_MOMENTS = ("queued_at", "scheduled_at", "executed_at", "completed_at")
# More closings than an engine has slots show a slot that is not given back; many slots need not all be tried.
_MOST_AT_ONCE = 4


async def check_engine(
    engine: Engine, *, prompt: str = _PROMPT, max_tokens: int = 12, timeout_s: float = 120.0
) -> None:
    """Check that an engine behaves as ``penstock.engines.base`` says.

    Checked are: the order of events and their one end; ids echoed; text and tokens of the end equal to those
    of the deltas; metrics valid as of protocol v0.1; ``max_tokens`` honoured with ``length``; bad requests
    refused before the first event; closing and cancelling at every stage, with the slot free afterwards;
    several calls at once; ``stream_text``.

    Args:
        engine: The engine; it is not closed.
        prompt: Something it answers with at least ``max_tokens`` tokens.
        max_tokens: How many tokens an answer may have here; at least 4.
        timeout_s: Seconds before a check that hangs fails.

    Raises:
        AssertionError: What does not hold.
        TimeoutError: A check hung.
    """
    _true(engine.capacity >= 1, f"capacity is {engine.capacity}, at least 1 is due")
    with anyio.fail_after(timeout_s):
        await _check_one(engine, prompt, max_tokens)
        await _check_refusal(engine, prompt)
        await _check_unstarted(engine, prompt)
        await _check_closing(engine, prompt, max_tokens)
        await _check_cancelling(engine, prompt, max_tokens)
        await _check_several(engine, prompt, max_tokens)
        await _check_text(engine, prompt, max_tokens)


def check_events(events: Sequence[EngineEvent], request: EngineRequest, engine_id: str) -> EngineEnd:
    """Check the events of one whole generation, and return its end.

    Raises:
        AssertionError: What does not hold.
    """
    kinds = [type(event).__name__ for event in events]
    _true(
        bool(events) and type(events[0]) is EngineStart, f"the first event is due to be a start: {kinds[:3]}"
    )
    end = events[-1]
    _true(type(end) is EngineEnd, f"the last event is due to be an end: {kinds[-3:]}")
    assert isinstance(end, EngineEnd)
    deltas = [event for event in events[1:-1] if isinstance(event, EngineDelta)]
    _true(
        len(deltas) == len(events) - 2, f"only deltas may stand between start and end: {sorted(set(kinds))}"
    )
    for event in events:
        told = (event.request_id, event.trace_id, event.engine_id)
        due = (request.request_id, request.trace_id, engine_id)
        _true(told == due, f"a {type(event).__name__} carries the ids {told}, due are {due}")
    text = "".join(delta.chunk for delta in deltas)
    _true(text == end.output_text, f"the deltas say {text!r}, the end {end.output_text!r}")
    tokens = [token for delta in deltas for token in delta.chunk_tokens]
    _true(tokens == end.output_tokens, f"the deltas hold the tokens {tokens}, the end {end.output_tokens}")
    _true((end.error is not None) == (end.finish_reason == "error"), f"{end.finish_reason} with {end.error}")
    _check_metrics(end.metrics)
    return end


def _check_metrics(metrics: EventMetrics) -> None:
    for name in EventMetrics.__struct_fields__:
        value = getattr(metrics, name)
        if isinstance(value, int | float):
            _true(math.isfinite(value) and value >= 0, f"metrics.{name} is {value}")
        if name in _RATES:
            _true(value <= 1, f"metrics.{name} is {value}, a rate is at most 1")
    _true(all(map(math.isfinite, metrics.itl_list)), f"metrics.itl_list holds {metrics.itl_list}")
    if metrics.timestamps is not None:
        _check_timestamps(metrics.timestamps)


def _check_timestamps(timestamps: EventTimestamps) -> None:
    moments = [getattr(timestamps, name) for name in _MOMENTS]
    _true(moments == sorted(moments), f"timestamps are out of order: {timestamps}")


async def _check_one(engine: Engine, prompt: str, max_tokens: int) -> None:
    request = _request(engine, prompt, max_tokens)
    end = check_events(await _all(engine, request), request, engine.engine_id)
    _true(end.finish_reason in ("stop", "length"), f"it failed: {end.error}")
    _true(bool(end.output_text), "the answer is empty")
    _true(len(end.output_tokens) <= max_tokens, f"{len(end.output_tokens)} tokens came, at most {max_tokens}")
    short = _request(engine, prompt, 2)
    end = check_events(await _all(engine, short), short, engine.engine_id)
    _true(len(end.output_tokens) <= 2, f"{len(end.output_tokens)} tokens came, max_tokens was 2")
    _true(end.finish_reason == "length", f"max_tokens ended it, but finish_reason is {end.finish_reason!r}")


async def _check_refusal(engine: Engine, prompt: str) -> None:
    try:
        events = await _all(engine, _request(engine, prompt, 0))
    except CallError as error:
        _true(error.code is ErrorCode.INVALID_ARGUMENT, f"max_tokens=0 was refused with {error.code}")
    else:
        raise AssertionError(f"max_tokens=0 was not refused: {events}")


async def _check_unstarted(engine: Engine, prompt: str) -> None:
    await engine.generate(_request(engine, prompt, 4)).aclose()


async def _check_closing(engine: Engine, prompt: str, max_tokens: int) -> None:
    """Close after the start and after the first delta, more often than there are slots."""
    for wanted in (EngineStart, EngineDelta):
        for _ in range(min(engine.capacity, _MOST_AT_ONCE) + 1):
            async with aclosing(engine.generate(_request(engine, prompt, max_tokens))) as events:
                await _until(events, wanted)
    await _check_one(engine, prompt, max_tokens)


async def _until(events: AsyncGenerator[EngineEvent, None], wanted: type[EngineEvent]) -> None:
    async for event in events:
        if type(event) is wanted:
            return
    raise AssertionError(f"no {wanted.__name__} came")


async def _check_cancelling(engine: Engine, prompt: str, max_tokens: int) -> None:
    """Cancel the task that reads, while it reads, more often than there are slots."""
    for _ in range(min(engine.capacity, _MOST_AT_ONCE) + 1):
        with anyio.CancelScope() as scope:
            async with aclosing(engine.generate(_request(engine, prompt, max_tokens))) as events:
                await _until(events, EngineStart)
                scope.cancel()
                async for _event in events:
                    await anyio.lowlevel.checkpoint()
    await _check_one(engine, prompt, max_tokens)


async def _check_several(engine: Engine, prompt: str, max_tokens: int) -> None:
    """One call more than fits (or than is worth trying) at the same time."""
    requests = [
        _request(engine, f"{prompt} {number}", max_tokens)
        for number in range(min(engine.capacity, _MOST_AT_ONCE) + 1)
    ]
    answers: dict[str, list[EngineEvent]] = {}

    async def answer(request: EngineRequest) -> None:
        answers[request.request_id] = await _all(engine, request)

    async with anyio.create_task_group() as tasks:
        for request in requests:
            tasks.start_soon(answer, request)
    for request in requests:
        end = check_events(answers[request.request_id], request, engine.engine_id)
        _true(end.finish_reason != "error", f"one of {len(requests)} calls at once failed: {end.error}")


async def _check_text(engine: Engine, prompt: str, max_tokens: int) -> None:
    pieces = [piece async for piece in engine.stream_text(prompt, max_tokens=max_tokens)]
    _true(bool(pieces) and all(pieces), f"stream_text gave {pieces}")


async def _all(engine: Engine, request: EngineRequest) -> list[EngineEvent]:
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


def _request(engine: Engine, prompt: str, max_tokens: int) -> EngineRequest:
    return EngineRequest(
        request_id=uuid.uuid4().hex,
        trace_id=uuid.uuid4().hex,
        model=engine.model,
        max_tokens=max_tokens,
        messages=({"role": "user", "content": prompt},),
    )


def _true(holds: bool, otherwise: str) -> None:
    # Not a plain assert: these checks must hold under python -O as well.
    if not holds:
        raise AssertionError(otherwise)
