"""What a command in a process of its own sees and says is what it would in the server's."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from penstock.calls.waiting import wait_stopped
from penstock.errors import CallError
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import CancelReason
from penstock.runtime.isolation import Isolation
from penstock.runtime.process import ProcessSettings
from penstock.testing.journal import Journal

pytestmark = pytest.mark.anyio

KINDS = """
import asyncio, math, os
from penstock import CommandError, Runtime, current_call, get_request_id, register_abort_callback
from penstock.protocol.events import EventMetrics
from penstock.testing.relay import RelayedJournal

rt = Runtime("manifest.yml")
journal = RelayedJournal()
register_abort_callback(lambda request_id: journal.record(f"project:{os.getpid()}", request_id))

@rt.command("plain")
def plain(text: str = "é") -> dict:
    return {"text": text, "id": get_request_id(), "mode": os.environ["SPI_STREAMING_ENV_VAR"]}

@rt.streaming_command("numbers")
def numbers(n: int = 3):
    for i in range(n):
        yield i

@rt.command("nothing")
async def nothing():
    pass

@rt.streaming_command("told")
async def told():
    call = current_call()
    for i in range(3):
        call.progress(i / 4, f"step {i}")
        yield i
    call.report_metrics(EventMetrics(ttft_ms=7.5, throughput_tps=2.0, peak_mem_mb=3, kv_used_tokens=4))

@rt.streaming_command("fails")
async def fails(how: str):
    yield {"ok": True}
    if how == "words":
        raise CommandError("no such voice", "not_found", details=[{"path": ["input", "voice"]}])
    if how == "plain":
        raise ValueError("a secret")
    if how == "exit":
        raise SystemExit(4)
    yield math.nan

@rt.streaming_command("large")
async def large(mb: int):
    yield "x" * (mb * 1024 * 1024)

@rt.command("slow", concurrency=1)
async def slow():
    journal.record("slow")
    try:
        await asyncio.Event().wait()
    finally:
        current_call().upstream_confirmed()
"""
ALL = ("plain", "numbers", "nothing", "told", "fails", "large", "slow")


async def test_every_kind_of_function_answers_as_in_the_server(isolate: Any) -> None:
    async with isolate("plain", "numbers", "nothing", "told", code=KINDS) as app:
        call = await app.open("plain", stream=False, text="ü")
        [_, last] = await app.frames(call)
        assert last.data == {"text": "ü", "id": call.request_id, "mode": "true"}
        assert await app.answer("nothing") is None
        assert await app.answer("numbers", n=3) == 2
        frames = await app.run("numbers", n=300)
        assert [frame.data for frame in frames[1:-1]] == list(range(300))
        assert [frame.seq for frame in frames] == list(range(302))
        frames = await app.run("told", notes=True)
        assert [(frame.status, frame.data) for frame in frames[1:-1]] == [
            pair
            for i in range(3)
            for pair in (("progress", {"fraction": i / 4, "message": f"step {i}"}), ("streaming", i))
        ]
        metrics = frames[-1].metrics
        assert (metrics["ttft_ms"], metrics["kv_used_tokens"], metrics["items"]) == (7.5, 4, 3)
        assert "progress" not in {frame.status for frame in await app.run("told")}


async def test_errors_arrive_as_they_were_raised(isolate: Any) -> None:
    async with isolate("fails", code=KINDS) as app:
        ends = {how: (await app.run("fails", how=how))[-1] for how in ("words", "plain", "exit", "nan")}
        assert (ends["words"].error, ends["words"].code) == ("no such voice", "not_found")
        assert ends["words"].details == [{"path": ["input", "voice"]}]
        assert (ends["plain"].error, ends["plain"].code) == ("fails failed (ValueError)", "command_failed")
        assert ends["exit"].error == "fails failed (SystemExit)"
        assert (ends["nan"].code, ends["nan"].retryable) == ("invalid_output", False)
        assert (await app.checks())["fails"] == "running"


async def test_it_knows_its_call(isolate: Any) -> None:
    async with isolate("whoami") as app:
        caller = Caller(key="k", correlation_id="corr-1", trace_parent="00-aa-bb-01")
        call = await app.open(
            "whoami", caller=caller, task_id="mine", timeout_s=50, output_config={"a": [1, {"b": None}]}
        )
        seen = (await app.frames(call))[-1].data
        assert seen["pid"] == app.pid("whoami") != os.getpid()
        assert (seen["request_id"], seen["task_id"]) == (call.request_id, "mine")
        assert 40 < seen["remaining"] <= 50
        assert seen["metadata"] == {"x_request_id": "corr-1", "traceparent": "00-aa-bb-01"}
        assert seen["output_config"] == {"a": [1, {"b": None}]}


async def test_what_an_engine_there_confirms_is_known_here(isolate: Any, journal: Journal) -> None:
    async with isolate("slow", code=KINDS) as app:
        call = await app.open("slow")
        with anyio.fail_after(20):
            await journal.wait("slow")
        call.cancel(CancelReason.CALLER)
        await app.frames(call)
        with anyio.fail_after(20):
            await wait_stopped(call)
        assert call.cut is not None
        assert call.cut.requested_at <= call.cut.confirmed_at <= call.cut.freed_at


async def test_the_wait_for_a_process_is_taken_off_the_time_that_remains(isolate: Any, gone: Any) -> None:
    async with isolate("whoami", backoff_s=0.5) as app:
        pid = app.pid("whoami")
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        with anyio.fail_after(20):
            while app.pids("whoami"):
                await anyio.lowlevel.checkpoint()
        assert 0 < (await app.answer("whoami", timeout_s=20))["remaining"] <= 19.5


async def test_two_callers_may_use_one_task_id(isolate: Any, journal: Journal) -> None:
    async with isolate("silent") as app:
        calls = [await app.open("silent", caller=Caller(key=key), task_id="mine") for key in "ab"]
        for call in calls:
            with anyio.fail_after(20):
                await journal.wait("started", call.request_id)
        for call in calls:
            call.cancel(CancelReason.CALLER)
            assert (await app.frames(call))[-1].status == "cancelled"


async def test_a_cancel_that_meets_the_opening_on_its_way_is_not_lost(isolate: Any) -> None:
    async with isolate("silent", grace_s=60) as app:
        for turns in range(20):
            call = await app.open("silent")
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            call.cancel(CancelReason.CALLER)
            assert (await app.frames(call))[-1].status == "cancelled"


@pytest.mark.parametrize("reason", [CancelReason.CALLER, CancelReason.DISCONNECT])
async def test_a_cancel_reaches_the_code_and_its_callbacks_once(
    isolate: Any, journal: Journal, reason: CancelReason
) -> None:
    async with isolate("silent") as app:
        call, other = await app.open("silent"), await app.open("silent")
        with anyio.fail_after(20):
            await journal.wait("started", call.request_id)
        call.cancel(reason)
        last = (await app.frames(call))[-1]
        assert (last.status, last.reason) == ("cancelled", reason.value)
        with anyio.fail_after(20):
            await journal.wait("aborted", call.request_id)
        other.cancel(CancelReason.CALLER)
        with anyio.fail_after(20):
            await journal.wait("aborted", other.request_id)
        assert sorted(journal.of(call.request_id)) == ["aborted", "cancelled", "started"]


async def test_callbacks_of_the_project_run_in_one_process_only(isolate: Any, journal: Journal) -> None:
    async with isolate("slow", code=KINDS) as app:
        running, queued = await app.open("slow"), await app.open("slow")
        with anyio.fail_after(20):
            await journal.wait("slow", running.request_id)
        pid = app.pid("slow")
        for call, where in ((queued, os.getpid()), (running, pid)):
            call.cancel(CancelReason.CALLER)
            with anyio.fail_after(20):
                await journal.wait(f"project:{where}", call.request_id)
        await app.settled()
        assert journal.of(queued.request_id) == (f"project:{os.getpid()}",)
        assert journal.of(running.request_id) == ("slow", f"project:{pid}")


async def test_the_deadline_is_the_servers(isolate: Any) -> None:
    async with isolate("silent") as app:
        for timeout_s in (0.05, 0.3):
            last = (await app.run("silent", timeout_s=timeout_s))[-1]
            assert last.code == "deadline_exceeded"
            assert last.details == [{"budget": "total", "limit_s": timeout_s}]


async def test_budgets_are_kept_by_the_server(isolate: Any) -> None:
    manifest = "workflows: {w: {steps: [{id: a, command: ticker, input: {n: 2}}]}}"
    async with isolate("ticker", manifest=manifest) as app:
        [*_, last] = await app.frames(await app.open("", workflow_id="w"))
        assert last.data == {"steps": {"a": {"tick": 1}}}


async def test_a_slow_reader_holds_the_process_back(isolate: Any) -> None:
    window = 16 * 1024
    async with isolate("flood", window=window) as app:
        call = await app.open("flood", size=1000)
        async with call.reader() as reader:
            with anyio.fail_after(20):
                await reader.__anext__()
                for _ in range(20):  # each takes a turn through the process, so what it can send has come
                    assert (await app.run("flood", n=1))[-1].status == "completed"
            [supervisor] = app.app._isolation.pool("flood").supervisors
            waiting = supervisor.process._calls[call.request_id]._ready
            assert 0 < sum(map(len, waiting)) <= window + 256 * 1024 + 2000
            assert call.log.kept_size < 2 * 256 * 1024 + 1024 * 1024
        call.cancel(CancelReason.CALLER)
        assert (await app.frames(call))[-1].status == "cancelled"


async def test_an_item_is_larger_than_any_window_or_refused(isolate: Any) -> None:
    async with isolate("large", code=KINDS) as app:
        frames = await app.run("large", mb=2)
        assert len(frames[1].data) == 2 * 1024 * 1024
        last = (await app.run("large", mb=64))[-1]
        assert (last.code, last.retryable) == ("too_large", False)
        assert (await app.checks())["large"] == "running"


async def test_bad_input_is_refused_before_it_gets_there(isolate: Any) -> None:
    async with isolate("numbers", code=KINDS) as app:
        with pytest.raises(CallError, match="m: unknown input; known are n"):
            await app.open("numbers", m=1)
        description = await app.app.describe()
        assert description.commands["numbers"].input_schema["properties"]["n"]["type"] == "integer"


async def test_many_at_once_with_every_tenth_cancelled(isolate: Any) -> None:
    async with isolate("ticker") as app:
        calls = [await app.open("ticker", n=20) for _ in range(90)]
        for call in calls[::10]:
            call.cancel(CancelReason.CALLER)
        ends = [await app.frames(call) for call in calls]
        for index, frames in enumerate(ends):
            if index % 10:
                assert [frame.data["tick"] for frame in frames[1:-1]] == list(range(20))
                assert frames[-1].status == "completed"
            else:
                assert frames[-1].status in ("cancelled", "completed")
        assert (await app.answer("echo", value=2)) == 2
        await app.settled()
        assert not app.app._isolation._forwarding


async def test_what_is_not_an_isolated_command_is_left_alone() -> None:
    isolation = Isolation({}, 0, None, ProcessSettings(), 1.0)
    await isolation.start()
    assert isolation.checks() == {}
    assert isolation.holds_state
    await isolation.aclose()


async def test_the_log_of_the_server_holds_no_input_and_no_output(
    isolate: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with isolate("plain", "fails", code=KINDS) as app:
        await app.run("plain", text="canary-1")
        await app.run("fails", how="canary-2")
        await asyncio.sleep(0)
    assert "canary" not in caplog.text
    assert "canary" not in "".join(capfd.readouterr())
