"""What author code can ask about its call, and tell."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from penstock.errors import CallError
from penstock.protocol.dispatch import Caller
from penstock.protocol.events import EventMetrics
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime.context import CallContext, current_call
from penstock.runtime.runtime import Runtime
from penstock.testing import FakeClock, Journal
from penstock.testing.clock import EPOCH

pytestmark = pytest.mark.anyio


async def test_who_and_what_the_call_is(serve: Any) -> None:
    rt = Runtime()

    @rt.command("predict")
    async def predict() -> list[Any]:
        call = current_call()
        return [call.id, call.request_id, call.task_id, call.command, dict(call.output_config), call.metadata]

    async with serve(rt) as served:
        start = Start(command="predict", task_id="mine", output_config={"format": "text"})
        caller = Caller(correlation_id="abc", trace_parent="00-1-2-01")
        live = await served.app.open(start, caller)
        data = (await served.frames(live))[-1].data
    metadata = {"x_request_id": "abc", "traceparent": "00-1-2-01"}
    assert data == [live.request_id, live.request_id, "mine", "predict", {"format": "text"}, metadata]
    assert len(live.request_id) == 32
    int(live.request_id, 16)


async def test_how_much_time_is_left(serve: Any) -> None:
    clock = FakeClock()
    rt = Runtime()

    @rt.command("predict")
    async def predict() -> list[Any]:
        clock.advance(10)
        return [current_call().remaining(), current_call().deadline]

    async with serve(rt, clock=clock) as served:
        assert (await served.run(timeout_s=30.0))[-1].data == [20.0, EPOCH + 30]
        assert await served.answer() == [None, None]


async def test_a_sync_function_can_leave_when_it_is_cancelled(serve: Any) -> None:
    journal, contexts = Journal(), []
    rt = Runtime()

    @rt.command("predict")
    def predict() -> None:
        call = current_call()
        call.raise_if_cancelled()
        contexts.append(call)
        journal.record("running")
        journal.wait_blocking("cancelled", call.request_id)
        assert call.cancelled
        call.raise_if_cancelled()
        journal.record("never")

    async with serve(rt) as served:
        live = await served.open()
        with anyio.fail_after(5):
            await journal.wait("running", live.request_id)
            assert not contexts[0].cancelled
            live.cancel(CancelReason.CALLER)
            journal.record("cancelled", live.request_id)
            frames = await served.frames(live)
        assert frames[-1].status == "cancelled"
    assert journal.of(live.request_id) == ("running", "cancelled")
    with pytest.raises(asyncio.CancelledError, match=r"cancelled \(caller\)"):
        contexts[0].raise_if_cancelled()


@pytest.mark.parametrize("notes", [True, False])
async def test_progress_is_a_note(serve: Any, notes: bool) -> None:
    rt = Runtime()

    @rt.command("predict")
    def predict() -> int:
        current_call().progress(0.25)
        current_call().progress(1.0, "done")
        return 1

    async with serve(rt) as served:
        frames = await served.run(notes=notes)
    told = [f.data for f in frames if f.status == "progress"]
    expected = [{"fraction": 0.25, "message": ""}, {"fraction": 1.0, "message": "done"}]
    assert told == (expected if notes else [])
    assert frames[-1].data == 1


@pytest.mark.parametrize("fraction", [float("nan"), object(), b"half"], ids=type)
async def test_progress_that_is_no_json_is_refused_where_it_is_told(serve: Any, fraction: Any) -> None:
    refused: list[CallError] = []
    rt = Runtime()

    @rt.command("predict")
    async def predict() -> int:
        with pytest.raises(CallError) as caught:
            current_call().progress(fraction)
        refused.append(caught.value)
        return 1

    async with serve(rt) as served:
        assert [f.status for f in await served.run(notes=True)] == ["accepted", "completed"]
    assert refused[0].code == "invalid_output"


async def test_measurements_of_an_engine_reach_the_last_frame(serve: Any) -> None:
    rt = Runtime()

    @rt.command("predict")
    async def predict() -> None:
        current_call().report_metrics(EventMetrics(ttft_ms=3.0, throughput_tps=9.0, peak_mem_mb=1))

    async with serve(rt) as served:
        metrics = (await served.run())[-1].metrics
    assert metrics is not None
    assert (metrics["ttft_ms"], metrics["throughput_tps"]) == (3.0, 9.0)


async def test_a_log_line_carries_the_call(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    rt = Runtime()

    @rt.command("predict")
    async def predict() -> None:
        current_call().log("loaded %s", "it")

    with caplog.at_level(logging.INFO, logger="penstock.command"):
        async with serve(rt) as served:
            live = await served.open()
            await served.frames(live)
    (record,) = [record for record in caplog.records if record.name == "penstock.command"]
    assert record.getMessage() == "loaded it"
    assert (vars(record)["request_id"], vars(record)["command"]) == (live.request_id, "predict")


async def test_the_context_is_the_same_in_every_thread(serve: Any) -> None:
    rt = Runtime()

    @rt.command("predict")
    async def predict() -> bool:
        here = current_call()
        there: CallContext = await asyncio.to_thread(current_call)
        return here is there

    async with serve(rt) as served:
        assert await served.answer() is True
