"""P18: whatever a command does to its process, its calls end typed, and nobody else notices."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

import anyio
import pytest

from penstock.protocol.messages import CancelReason, decode_frame

pytestmark = pytest.mark.anyio

QUICK = {"beat_s": 0.1, "frozen_s": 1.0, "held_s": 1.0}


@pytest.mark.parametrize(
    ("command", "given", "items", "why"),
    [
        ("exit_at", {"k": 2}, 2, "exit code 3"),
        ("exit_at", {"k": 0, "code": 0}, 0, "exit code 0"),
        ("exit_at", {"k": 200}, 200, "exit code 3"),
        ("segv_at", {"k": 1}, 1, "exit code -11, SIGSEGV"),
        ("gil_hold", {}, 1, "frozen, or holding the interpreter lock"),
        ("freeze", {}, 1, "frozen, or holding the interpreter lock"),
        # On a busy machine its other threads may not come to run either.
        ("spin_loop", {}, 1, "its event loop was held|frozen, or holding the interpreter lock"),
    ],
)
async def test_its_calls_end_typed_others_go_on_and_it_is_replaced(
    isolate: Any, command: str, given: dict[str, int], items: int, why: str
) -> None:
    async with isolate(command, "ticker", **QUICK) as app:
        other = await app.open("ticker", n=1_000_000, dt=0.05)
        await app.started(other)
        pid, other_pid = app.pid(command), app.pid("ticker")
        call = await app.open(command, **given)
        while call.ending is None:
            assert await app.answer("echo", value=1) == 1  # in the server, while the process dies
            assert (await app.app.health()).status == "healthy"
        *streamed, last = (await app.frames(call))[1:]
        assert [frame.data for frame in streamed] == [{"tick": i} for i in range(items)]
        assert (last.code, last.retryable, last.retry_after_s) == ("unavailable", True, 1)
        assert re.search(why, last.error)
        assert re.match(f"respawning after ({why})", (await app.checks())[command])
        again = await app.open(command, **{**given, **({"k": 1} if "k" in given else {})})
        await app.started(again)
        assert app.pid("ticker") == other_pid
        assert other.ending is None
        other.cancel(CancelReason.CALLER)
        again.cancel(CancelReason.CALLER)
        await app.frames(again)
        with pytest.raises(ProcessLookupError):  # reaped: no zombie is left of it
            os.kill(pid, 0)


async def test_memory_that_runs_out_is_a_typed_failure(isolate: Any) -> None:
    async with isolate("oom") as app:
        last = (await app.run("oom"))[-1]
        assert (last.code, last.error) == ("command_failed", "oom failed (MemoryError)")
        assert await app.answer("echo", value=1) == 1
        assert (await app.run("oom"))[-1].code in ("command_failed", "unavailable")


async def test_killed_from_outside_it_fails_at_once(isolate: Any) -> None:
    async with isolate("silent") as app:
        calls = [await app.open("silent") for _ in range(5)]
        probe = await app.open("silent")
        probe.cancel(CancelReason.CALLER)  # it answers, so those before it have arrived
        await app.frames(probe)
        began = time.monotonic()
        os.kill(app.pid("silent"), signal.SIGKILL)
        ends = [(await app.frames(call))[-1] for call in calls]
        assert time.monotonic() - began < 20
        assert {(end.code, end.retryable) for end in ends} == {("unavailable", True)}
        assert "SIGKILL" in ends[0].error


async def test_what_it_forked_goes_with_it(isolate: Any, gone: Any) -> None:
    async with isolate("fork_child") as app:
        call = await app.open("fork_child")
        await app.started(call)
        item = decode_frame(call.log.read(0, 1)[0]).data
        os.kill(app.pid("fork_child"), signal.SIGKILL)
        assert (await app.frames(call))[-1].code == "unavailable"
        await gone(item["pid"])


async def test_a_cancel_that_is_ignored_kills_the_process_and_frees_the_permit(
    isolate: Any, journal: Any, gone: Any
) -> None:
    async with isolate("ignore_cancel", "ticker", grace_s=0.3) as app:
        elsewhere = await app.open("ticker", n=1_000_000, dt=0.05)
        stubborn = await app.open("ignore_cancel")
        for call in (elsewhere, stubborn):
            await app.started(call)
        bystander = await app.open("ignore_cancel")
        await app.started(bystander)  # so that process has also gone on with the first
        pid = app.pid("ignore_cancel")
        stubborn.cancel(CancelReason.CALLER)
        last = (await app.frames(stubborn))[-1]
        assert (last.status, last.reason) == ("cancelled", "caller")
        lost = (await app.frames(bystander))[-1]
        assert (lost.code, lost.retryable) == ("unavailable", True)
        assert "0.3 s after its cancel" in lost.error
        await gone(pid)
        assert elsewhere.ending is None
        assert "stuck" not in await app.checks()
        assert journal.count("aborted", stubborn.request_id) == 1
        assert journal.count("aborted", bystander.request_id) == 0
        again = await app.open("ignore_cancel")
        await app.started(again)
        assert app.pid("ignore_cancel") != pid


async def test_a_call_that_comes_while_it_is_replaced_waits_or_is_told_when_to_come_back(
    isolate: Any,
) -> None:
    async with isolate("exit_at", wait_s=0.2, backoff_s=600, backoff_most_s=600) as app:
        await app.run("exit_at")
        last = (await app.run("exit_at"))[-1]
        assert (last.code, last.retryable, last.retry_after_s) == ("unavailable", True, 600)
        assert "no process to run in (respawning after exit code 3)" in last.error
        waiting = await app.open("exit_at")
        waiting.cancel(CancelReason.CALLER)
        assert (await app.frames(waiting))[-1].status == "cancelled"


async def test_a_server_that_was_held_itself_blames_nobody(isolate: Any) -> None:
    async with isolate("ticker", **QUICK) as app:
        pid = app.pid("ticker")
        for _ in range(2):
            time.sleep(1.5)  # noqa: ASYNC251 - holds this event loop, on purpose
            assert (await app.run("ticker"))[-1].status == "completed"
        assert app.pid("ticker") == pid


async def test_signals_meant_for_the_server_leave_it_alone(isolate: Any) -> None:
    async with isolate("whoami") as app:
        pid = app.pid("whoami")
        assert os.getsid(pid) == pid != os.getsid(0)
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert (await app.answer("whoami"))["pid"] == pid
        with anyio.fail_after(20):
            assert (await app.answer("whoami"))["pid"] == pid
