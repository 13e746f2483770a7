"""check_engine finds what is wrong with an engine: a check that passes everything is worth nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import anyio
import msgspec
import pytest

from penstock.engines.scripted import ScriptedEngine
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineRequest, EngineStart
from penstock.testing import check_engine

pytestmark = pytest.mark.anyio

Change = Callable[[EngineEvent], list[EngineEvent]]


class Changed(ScriptedEngine):
    """A scripted engine whose events are tampered with."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        async for event in super().generate(request):
            for changed in self._change(event):
                yield changed


def on(kind: type[EngineEvent], make: Callable[[EngineEvent], list[EngineEvent]]) -> Change:
    return lambda event: make(event) if type(event) is kind else [event]


def with_(**changes: object) -> Callable[[EngineEvent], list[EngineEvent]]:
    return lambda event: [msgspec.structs.replace(event, **changes)]


def bad_metrics(**changes: object) -> Change:
    def make(event: EngineEvent) -> list[EngineEvent]:
        assert isinstance(event, EngineEnd)
        return with_(metrics=msgspec.structs.replace(event.metrics, **changes))(event)

    return on(EngineEnd, make)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (on(EngineStart, lambda _: []), "first event is due to be a start"),
        (on(EngineEnd, lambda _: []), "last event is due to be an end"),
        (on(EngineEnd, lambda event: [event, event]), "only deltas may stand"),
        (on(EngineStart, lambda event: [event, event]), "only deltas may stand"),
        (on(EngineDelta, with_(request_id="other")), "carries the ids"),
        (on(EngineDelta, with_(trace_id="other")), "carries the ids"),
        (on(EngineEnd, with_(engine_id="other")), "carries the ids"),
        (on(EngineEnd, with_(output_text="other")), "the deltas say"),
        (on(EngineEnd, with_(output_tokens=[7])), "hold the tokens"),
        (on(EngineEnd, with_(finish_reason="error")), "error with None"),
        (on(EngineEnd, with_(finish_reason="stop")), "finish_reason is 'stop'"),
        (bad_metrics(ttft_ms=-1.0), "metrics.ttft_ms"),
        (bad_metrics(throughput_tps=float("inf")), "metrics.throughput_tps"),
        (bad_metrics(prefix_hit_rate=1.5), "a rate is at most 1"),
        (bad_metrics(itl_list=[float("nan")]), "itl_list"),
    ],
)
async def test_tampered_events_are_found(change: Change, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        await check_engine(Changed(change), timeout_s=5)


async def test_times_out_of_order_are_found() -> None:
    ticks = iter(range(10_000, 0, -1))
    with pytest.raises(AssertionError, match=r"ttft_ms|out of order"):
        await check_engine(ScriptedEngine(clock=lambda: float(next(ticks))), timeout_s=5)


async def test_a_failing_engine_is_found() -> None:
    with pytest.raises(AssertionError, match="it failed"):
        await check_engine(ScriptedEngine(fault="fail", after=2), timeout_s=5)


async def test_an_engine_that_takes_bad_requests_is_found() -> None:
    class Lax(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
            taken = msgspec.structs.replace(request, max_tokens=max(1, request.max_tokens))
            async for event in super().generate(taken):
                yield event

    with pytest.raises(AssertionError, match="max_tokens=0 was not refused"):
        await check_engine(Lax(), timeout_s=5)


async def test_an_engine_that_keeps_its_slot_is_found() -> None:
    class Leaking(ScriptedEngine):
        def __init__(self) -> None:
            super().__init__(capacity=2)
            self.slots = anyio.Semaphore(2)

        async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
            await self.slots.acquire()
            async for event in super().generate(request):
                yield event
            self.slots.release()

    with pytest.raises(TimeoutError):
        await check_engine(Leaking(), timeout_s=0.5)
