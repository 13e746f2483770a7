"""stream_text over any engine: never a silent end, and what it tells the call it runs in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import cast

import msgspec
import pytest

from penstock.calls import ambient
from penstock.engines.base import Engine, error_event, refuse_invalid
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import (
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineReport,
    EngineRequest,
    EngineStart,
    EventError,
    EventMetrics,
    FinishReason,
    Sampling,
)

pytestmark = pytest.mark.anyio

METRICS = EventMetrics(ttft_ms=1.5, throughput_tps=80.0, peak_mem_mb=3)
IDS = {"request_id": "r", "trace_id": "t", "engine_id": "told"}


class Told(Engine):
    """Yields the given events and remembers what it was asked."""

    def __init__(self, *events: object) -> None:
        self.engine_id = self.model = "told"
        self.capacity = 1
        self.asked: list[EngineRequest] = []
        self.closed_streams = 0
        self._events = cast("Sequence[EngineEvent]", events)

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        self.asked.append(request)
        try:
            for event in self._events:
                yield event
        finally:
            self.closed_streams += 1

    def close(self) -> None:
        self.asked.clear()


class Call:
    """A call such as the executor sets around an author's function."""

    request_id = "5" * 32

    def __init__(self) -> None:
        self.reported: list[EngineReport] = []

    metadata: Mapping[str, str] = {}

    def remaining(self) -> float | None:
        return None

    def report(self, report: EngineReport) -> None:
        self.reported.append(report)


def delta(text: str) -> EngineDelta:
    return EngineDelta(**IDS, chunk=text, chunk_tokens=[1])


def end(reason: FinishReason = "stop", error: EventError | None = None) -> EngineEnd:
    return EngineEnd(
        **IDS, output_text="", output_tokens=[], finish_reason=reason, metrics=METRICS, error=error
    )


async def text_of(engine: Engine) -> list[str]:
    return [piece async for piece in engine.stream_text("hello")]


async def test_gives_the_pieces_and_leaves_out_empty_ones() -> None:
    engine = Told(EngineStart(**IDS), delta("a"), delta(""), delta("b"), end())
    assert await text_of(engine) == ["a", "b"]


async def test_a_stream_without_an_end_raises_after_its_pieces() -> None:
    text = Told(EngineStart(**IDS), delta("a")).stream_text("hello")
    assert await anext(text) == "a"
    with pytest.raises(CallError, match="without an end event") as raised:
        await anext(text)
    assert raised.value.code is ErrorCode.UPSTREAM_FAILED


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (EventError(code="resource_exhausted", message="full"), ErrorCode.RESOURCE_EXHAUSTED, True),
        (EventError(code="unavailable", message="gone", retryable=False), ErrorCode.UNAVAILABLE, False),
        (EventError(code="CUDA_OOM", message="odd"), ErrorCode.UPSTREAM_FAILED, True),
        (None, ErrorCode.UPSTREAM_FAILED, True),
    ],
)
async def test_a_failed_end_raises_its_code(
    error: EventError | None, code: ErrorCode, retryable: bool
) -> None:
    with pytest.raises(CallError) as raised:
        await text_of(Told(EngineStart(**IDS), end("error", error)))
    assert (raised.value.code, raised.value.retryable) == (code, retryable)


async def test_what_is_no_event_raises() -> None:
    with pytest.raises(CallError, match="sent a dict"):
        await text_of(Told(EngineStart(**IDS), {"event": "delta"}, end()))


async def test_nothing_after_the_end_is_read() -> None:
    assert await text_of(Told(EngineStart(**IDS), delta("a"), end(), delta("late"))) == ["a"]


async def test_closing_the_text_closes_the_events_at_once() -> None:
    engine = Told(EngineStart(**IDS), delta("a"), delta("b"), end())
    text = engine.stream_text("hello")
    assert await anext(text) == "a"
    await text.aclose()
    assert engine.closed_streams == 1


async def test_in_a_call_it_uses_its_id_and_reports_metrics() -> None:
    engine, call = Told(EngineStart(**IDS), end()), Call()
    token = ambient.current.set(call)
    try:
        await text_of(engine)
    finally:
        ambient.current.reset(token)
    assert engine.asked[0].request_id == engine.asked[0].trace_id == call.request_id
    assert [report.metrics for report in call.reported] == [METRICS]


async def test_a_failed_end_raises_what_was_told_of_it_details_and_all() -> None:
    told = CallError("too slow", ErrorCode.DEADLINE_EXCEEDED, details=[{"budget": "gap", "limit_s": 3}])
    failed = EngineEnd(
        **IDS,
        output_text="",
        output_tokens=[],
        finish_reason="error",
        metrics=METRICS,
        error=error_event(told),
    )
    with pytest.raises(CallError) as raised:
        async for _ in Told(EngineStart(**IDS), failed).stream_text("hello"):
            pass
    got = raised.value
    assert (got.code, got.message, list(got.details)) == (told.code, "too slow", list(told.details))


def test_an_error_without_details_stands_in_an_event_as_v01_has_it() -> None:
    event = error_event(CallError("no", ErrorCode.UNAVAILABLE))
    assert msgspec.json.encode(event) == b'{"code":"unavailable","message":"no","retryable":true}'


async def test_a_failed_end_reports_its_metrics_too() -> None:
    engine, call = Told(EngineStart(**IDS), end("error")), Call()
    token = ambient.current.set(call)
    try:
        with pytest.raises(CallError):
            await text_of(engine)
    finally:
        ambient.current.reset(token)
    assert [report.metrics for report in call.reported] == [METRICS]


async def test_outside_a_call_every_request_has_a_fresh_id() -> None:
    engine = Told(EngineStart(**IDS), end())
    await text_of(engine)
    await text_of(engine)
    first, second = (request.request_id for request in engine.asked)
    assert first != second
    assert len(first) == 32
    assert int(first, 16) >= 0


async def test_arguments_become_the_request() -> None:
    engine = Told(EngineStart(**IDS), end())
    text = engine.stream_text(
        "hi", system_prompt="be kind", max_tokens=7, temperature=0.5, seed=3, stop="END"
    )
    assert [piece async for piece in text] == []
    request = engine.asked[0]
    assert request.messages == (
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
    )
    assert (request.max_tokens, request.model) == (7, "told")
    assert request.sampling == Sampling(temperature=0.5, seed=3, stop=("END",))


def test_an_unknown_option_is_a_type_error_that_lists_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"temprature.*known are temperature, top_p"):
        Told().stream_text("hi", temprature=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("max_tokens", {"max_tokens": 0}),
        ("messages", {"messages": ()}),
        ("temperature", {"sampling": Sampling(temperature=-0.1)}),
        ("temperature", {"sampling": Sampling(temperature=2.1)}),
        ("temperature", {"sampling": Sampling(temperature=float("nan"))}),
        ("top_p", {"sampling": Sampling(top_p=0)}),
        ("top_p", {"sampling": Sampling(top_p=1.1)}),
        ("top_k", {"sampling": Sampling(top_k=-1)}),
        ("stop", {"sampling": Sampling(stop=("a", ""))}),
    ],
)
def test_values_outside_the_limits_are_refused_by_name(field: str, request_: dict[str, object]) -> None:
    with pytest.raises(CallError, match=f"^{field}: ") as raised:
        refuse_invalid(EngineRequest(request_id="r", trace_id="t", model="m", prompt="p", **request_))
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT
    assert raised.value.details[0]["path"] == [field]


def test_values_at_the_limits_are_taken() -> None:
    sampling = Sampling(temperature=0, top_p=1, top_k=0, stop=("x",))
    refuse_invalid(
        EngineRequest(request_id="r", trace_id="t", model="m", prompt="p", max_tokens=1, sampling=sampling)
    )
    refuse_invalid(EngineRequest(request_id="r", trace_id="t", model="m", sampling=Sampling(temperature=2)))


async def test_leaving_the_context_closes_the_engine() -> None:
    engine = Told(EngineStart(**IDS), end())
    async with engine as same:
        await text_of(same)
        assert engine.asked
    assert not engine.asked
