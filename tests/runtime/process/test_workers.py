"""``workers: N``: calls are spread over processes, and what happens to one is nobody else's matter."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from penstock.calls.live import Live
from penstock.errors import AuthoringError
from penstock.protocol.dispatch import Health
from penstock.protocol.messages import CancelReason, Frame, decode_frame
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

THREE = "workers: 3"
QUICK = {"beat_s": 0.1, "frozen_s": 1.0, "held_s": 1.0}
WHERE = """
import asyncio, os, threading
from penstock import Runtime, current_call
rt = Runtime("manifest.yml")

@rt.streaming_command("stay")
async def stay(n: int = 1_000_000):
    for i in range(n):
        yield [os.getpid(), i]
        await asyncio.sleep(0.01)

@rt.command("whoami")
async def whoami():
    return os.getpid()

@rt.command("apart")
async def apart():
    return os.getpid()

@rt.command("in_thread", isolation="thread")
async def in_thread():
    return [os.getpid(), threading.current_thread() is threading.main_thread()]
"""


async def where(app: Any, live: Live) -> int:
    """Return the process that runs a `stay`."""
    await app.started(live)
    pid: int = decode_frame(live.log.read(0, 1)[0]).data[0]
    return pid


def ticks(frames: list[Frame]) -> list[int]:
    """Return what a `stay` counted."""
    return [frame.data[1] for frame in frames if frame.status == "streaming"]


async def health(app: Any, status: str) -> Health:
    """Return what the probes say, once it is ``status``."""
    with anyio.fail_after(20):
        while (told := await app.app.health()).status != status:
            await anyio.lowlevel.checkpoint()
    return told


# -- who gets a call -------------------------------------------------------------------------------------


async def test_idle_workers_take_turns(isolate: Any) -> None:
    async with isolate(code=WHERE, manifest=THREE) as app:
        seen = Counter([await app.answer("whoami") for _ in range(12)])
        assert seen == dict.fromkeys(app.pids("whoami"), 4)
        assert os.getpid() not in seen
        assert await app.checks() == dict.fromkeys(("worker 1", "worker 2", "worker 3"), "running")


async def test_a_call_goes_to_the_worker_with_the_fewest(isolate: Any) -> None:
    async with isolate(code=WHERE, manifest=THREE) as app:
        calls = [await app.open("stay") for _ in range(9)]
        places = [await where(app, call) for call in calls]
        assert Counter(places) == dict.fromkeys(app.pids("stay"), 3)
        relieved = [call for call, pid in zip(calls, places, strict=True) if pid == places[0]][:2]
        for call in relieved:
            call.cancel(CancelReason.CALLER)
            await app.frames(call)
        await app.settled(7)
        new = [await app.open("stay") for _ in range(2)]
        assert [await where(app, call) for call in new] == [places[0]] * 2
        for call in (*calls, *new):
            call.cancel(CancelReason.CALLER)


async def test_one_that_is_being_killed_gets_no_more(isolate: Any) -> None:
    async with isolate(code=WHERE, manifest="workers: 2") as app:
        doomed, other = app.pids("whoami")
        app.app._isolation.pool("whoami").supervisors[0].process.kill("a test")
        assert app.pids("whoami") == [other]
        assert await app.answer("whoami") == other != doomed


async def test_nothing_of_theirs_is_watched_on_the_servers_loop(isolate: Any) -> None:
    async with isolate(code=WHERE, manifest="workers: 1") as app:
        assert app.app._watchdog is None


async def test_isolation_of_a_command_is_kept(isolate: Any) -> None:
    async with isolate("apart", code=WHERE, manifest="workers: 2") as app:
        own, workers = app.pid("apart"), app.pids("whoami")
        assert [await app.answer("apart") for _ in range(3)] == [own] * 3
        assert {await app.answer("whoami") for _ in range(4)} == set(workers)
        assert own not in workers
        for _ in range(2):
            pid, in_main_thread = await app.answer("in_thread")
            assert pid in workers
            assert not in_main_thread


async def test_a_workflow_runs_its_steps_in_workers(isolate: Any) -> None:
    steps = ", ".join(f"{{id: s{n}, command: whoami}}" for n in range(4))
    async with isolate(code=WHERE, manifest=f"{THREE}\nworkflows: {{w: {{steps: [{steps}]}}}}") as app:
        [*_, last] = await app.frames(await app.open("", workflow_id="w"))
        assert set(last.data["steps"].values()) == set(app.pids("whoami"))


async def test_limits_are_those_of_the_project_not_of_each_worker(isolate: Any) -> None:
    code = WHERE.replace('"stay"', '"stay", concurrency=2')
    async with isolate(code=code, manifest=THREE) as app:
        calls = [await app.open("stay") for _ in range(3)]
        assert len({await where(app, call) for call in calls[:2]}) == 2
        door = app.app._admissions["stay"]
        assert (door.running, door.waiting) == (2, 1)
        calls[0].cancel(CancelReason.CALLER)
        await where(app, calls[2])
        for call in calls[1:]:
            call.cancel(CancelReason.CALLER)


# -- workers that are lost -------------------------------------------------------------------------------


async def test_each_is_killed_in_turn_and_only_its_own_calls_are_lost(isolate: Any) -> None:
    async with isolate(code=WHERE, manifest=THREE) as app:
        for victim in app.pids("stay"):
            calls = [await app.open("stay", n=60) for _ in range(9)]
            places = [await where(app, call) for call in calls]
            os.kill(victim, signal.SIGKILL)
            lost = calls[places.index(victim)]
            assert "SIGKILL" in (await app.frames(lost))[-1].error
            for _ in range(6):  # the others take what comes, at once
                assert await app.answer("whoami") != victim
            for call, pid in zip(calls, places, strict=True):
                frames = await app.frames(call)
                assert [frame.seq for frame in frames] == list(range(len(frames)))
                terminal = [frame for frame in frames if frame.status not in ("accepted", "streaming")]
                assert len(terminal) == 1
                if pid == victim:
                    assert ticks(frames) == list(range(len(frames) - 2))
                    assert (terminal[0].code, terminal[0].retryable) == ("unavailable", True)
                else:
                    assert ticks(frames) == list(range(60))
                    assert terminal[0].status == "completed"
            assert (await app.app.health()).status == "healthy"
            while len(app.pids("stay")) < 3:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(ProcessLookupError):  # reaped: no zombie is left of it
                os.kill(victim, 0)
        seen = {await app.answer("whoami") for _ in range(3)}
        assert seen == set(app.pids("whoami"))


@pytest.mark.parametrize("command", ["exit_at", "segv_at"])
async def test_one_that_crashes_under_load_takes_only_its_own_along(isolate: Any, command: str) -> None:
    async with isolate(manifest="workers: 2") as app:
        pids = app.pids("ticker")
        calls = [await app.open("ticker", n=30, dt=0.01) for _ in range(20)]
        crash = await app.open(command, k=1)
        assert (await app.frames(crash))[-1].code == "unavailable"
        later = [await app.open("ticker", n=3) for _ in range(20)]
        [left] = set(pids) & set(app.pids("ticker"))
        assert left in pids
        ends = [(await app.frames(call))[-1] for call in calls]
        assert Counter(end.status for end in ends) == {"completed": 10, "error": 10}
        assert {end.code for end in ends if end.status == "error"} == {"unavailable"}
        assert {(await app.frames(call))[-1].status for call in later} == {"completed"}


@pytest.mark.parametrize("command", ["gil_hold", "freeze", "spin_loop"])
async def test_one_that_hangs_is_avoided_then_killed_and_replaced(
    isolate: Any, gone: Any, command: str
) -> None:
    async with isolate(manifest="workers: 2", **QUICK) as app:
        pids = app.pids("whoami")
        bad = await app.open(command)
        await app.started(bad)
        supervisors = app.app._isolation.pool(command).supervisors
        [hanging] = [s.process for s in supervisors if s.process.calls]
        with anyio.fail_after(20):
            while not hanging.late:
                await anyio.lowlevel.checkpoint()
        other = next(pid for pid in pids if pid != hanging.pid)
        busy = [await app.open("silent") for _ in range(5)]  # so it is the one with the fewest calls
        for _ in range(5):
            assert (await app.answer("whoami"))["pid"] == other
        await gone(hanging.pid)
        assert (await app.frames(bad))[-1].code == "unavailable"
        while len(app.pids("whoami")) < 2:
            await anyio.lowlevel.checkpoint()
        assert other in app.pids("whoami")
        for call in busy:
            assert call.ending is None
            call.cancel(CancelReason.CALLER)


async def test_ready_is_said_as_long_as_one_lives(isolate: Any) -> None:
    async with isolate(code=WHERE, manifest="workers: 2", backoff_s=0.5) as app:
        first, second = app.pids("whoami")
        os.kill(first, signal.SIGKILL)
        while len(app.pids("whoami")) == 2:
            await anyio.lowlevel.checkpoint()
        assert (await app.app.health()).status == "healthy"
        os.kill(second, signal.SIGKILL)
        told = await health(app, "starting")
        assert told.phase == "waiting for a worker"
        assert await app.answer("whoami") not in (first, second)  # a call waits for the next one
        assert (await health(app, "healthy")).phase == "ready"
        checks = await app.checks()
        assert "running" in checks.values()
        assert all(told == "running" or told.startswith("respawning after") for told in checks.values())


async def test_a_call_that_finds_no_worker_is_told_when_to_come_back(isolate: Any) -> None:
    async with isolate(manifest="workers: 1", wait_s=0.2, backoff_s=600, backoff_most_s=600) as app:
        await app.run("exit_at")
        last = (await app.run("whoami"))[-1]
        assert (last.code, last.retryable, last.retry_after_s) == ("unavailable", True, 600)
        assert last.error == "whoami has no process to run in (respawning after exit code 3); try again"


# -- starts ----------------------------------------------------------------------------------------------

IN_CHILD = """
import fcntl, sys
if sys.modules["__main__"].__spec__ and sys.modules["__main__"].__spec__.name == "penstock.runtime.child":
    lock = open(__file__)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RuntimeError("there can be only one")
"""


@pytest.mark.usefixtures("children")
async def test_one_that_does_not_come_up_is_a_failed_start(isolate: Any) -> None:
    with pytest.raises(AuthoringError, match=r"worker [12] cannot run .*: .*there can be only one"):
        async with isolate(code=WHERE + IN_CHILD, manifest="workers: 2"):
            raise AssertionError("it started")


async def test_a_project_in_memory_has_no_workers() -> None:
    runtime = Runtime(Manifest(workers=2))

    @runtime.command("one")
    async def one() -> None: ...

    with pytest.raises(AuthoringError, match=r"`workers: 2` needs a project on disk.*`workers: 0`"):
        await App(runtime).start()


async def test_a_stream_of_input_reaches_no_worker(isolate: Any) -> None:
    code = WHERE + (
        "from collections.abc import AsyncIterator\n"
        '@rt.command("sum")\nasync def total(numbers: AsyncIterator[int]) -> int:\n    return 0\n'
    )
    with pytest.raises(AuthoringError, match=r"sum takes a stream of input.*use `workers: 0`"):
        async with isolate(code=code, manifest="workers: 2"):
            raise AssertionError("it started")


async def test_lines_that_a_worker_logs_name_it(isolate: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code = WHERE.replace("return os.getpid()", 'logging.getLogger("mine").warning("told"); return 1', 1)
    async with isolate(code="import logging\n" + code, manifest="workers: 2") as app:
        await app.answer("whoami")
    assert "[worker 1] mine: told" in capfd.readouterr().err
