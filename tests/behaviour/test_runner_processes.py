"""Runners in processes of their own, that are killed, stopped and held."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from behaviour.promises import promise
from behaviour.sites import Site, data, site
from penstock.protocol.dispatch import LiveCall
from penstock.protocol.messages import CancelReason

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are signalled in the Unix way"),
]

HEARTBEAT_S = 0.4
START_S = 60.0
PROJECT = """
import asyncio
import time

from penstock import Runtime

rt = Runtime("manifest.yml")


@rt.streaming_command("count")
async def count(items: int, gap: float = 0.0):
    for i in range(items):
        yield {"i": i}
        await asyncio.sleep(gap)


@rt.streaming_command("silent")
async def silent():
    await asyncio.sleep(600)
    yield {"i": 0}


@rt.streaming_command("hold")
async def hold(seconds: float):
    yield {"i": 0}
    time.sleep(seconds)  # the event loop, as code does that knows no better
    yield {"i": 1}
"""
MANIFEST = "name: project\nentrypoint: run.py\ncommands:\n  silent: {idempotent: true}\n"


@asynccontextmanager
async def process(at: Site, folder: Path, name: str = "one") -> AsyncIterator[asyncio.subprocess.Process]:
    """A runner of `PROJECT`, as a process, which has dialled in."""
    (folder / "run.py").write_text(PROJECT)
    (folder / "manifest.yml").write_text(MANIFEST)
    there = sum(runner.takes for runner in at.hub.runners)
    command = [sys.executable, "-m", "penstock.cli", "runner", str(folder), "--gateway", at.cable.url]
    running = await asyncio.create_subprocess_exec(
        *command, "--name", name, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        with anyio.fail_after(START_S):
            while sum(runner.takes for runner in at.hub.runners) <= there:
                assert running.returncode is None
                await asyncio.sleep(0.01)
        yield running
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGCONT)
            running.kill()
        await running.wait()


async def first_item(live: LiveCall) -> None:
    """Return once a call streams."""
    with anyio.fail_after(5):
        async with live.reader() as reader:
            async for batch in reader:
                if any(b'"streaming"' in line for line in batch.lines):
                    return


async def away(at: Site, name: str = "one") -> float:
    """Return once a runner is away or gone, and how long that took in seconds."""
    began = time.monotonic()
    with anyio.fail_after(10):
        while any(r.name == name and r.connected for r in at.hub.runners):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return time.monotonic() - began


@promise("P23", "P18")
async def test_a_killed_runner_is_noticed_at_once_and_its_successor_ends_its_calls(tmp_path: Path) -> None:
    async with site() as at:
        async with process(at, tmp_path) as running:
            live = await at.open("count", items=10_000, gap=0.01)
            await first_item(live)
            running.kill()
            assert await away(at) < 1.0
            await running.wait()
        async with process(at, tmp_path):
            [*_, last] = await at.frames(live)
            assert (last["code"], last["retryable"]) == ("unavailable", True)
            assert data(await at.frames(await at.open("count", items=3))) == [0, 1, 2]


@promise("P23")
async def test_a_killed_runners_silent_call_moves(tmp_path: Path) -> None:
    async with site() as at, process(at, tmp_path, "one") as running:
        live = await at.open("silent")
        for _ in range(100):
            await asyncio.sleep(0)
        async with process(at, tmp_path, "two"):
            running.kill()
            assert await away(at, "one") < 1.0
            with anyio.fail_after(5):
                while not any(r.name == "two" and r.calls for r in at.hub.runners):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            live.cancel(CancelReason.CALLER)
            assert (await at.frames(live))[-1]["status"] == "cancelled"


@promise("P23")
async def test_a_stopped_runner_is_away_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with site(heartbeat_s=HEARTBEAT_S) as at, process(at, tmp_path) as running:
        live = await at.open("count", items=20, gap=0.01)
        await first_item(live)
        os.kill(running.pid, signal.SIGSTOP)
        assert await away(at) <= 3 * HEARTBEAT_S + 1.0
        os.kill(running.pid, signal.SIGCONT)
        frames = await at.frames(live)
        assert data(frames) == list(range(20))
        assert frames[-1]["status"] == "completed"


@promise("P23")
async def test_a_runner_whose_loop_is_held_is_away_and_goes_on(tmp_path: Path) -> None:
    async with site(heartbeat_s=HEARTBEAT_S) as at, process(at, tmp_path) as _:
        live = await at.open("hold", seconds=3.0)
        assert await away(at) <= 3 * HEARTBEAT_S + 1.0
        frames = await at.frames(live)
        assert data(frames) == [0, 1]
        assert frames[-1]["status"] == "completed"


@promise("P22")
async def test_a_terminated_runner_finishes_its_calls_and_ends_well(tmp_path: Path) -> None:
    async with site() as at, process(at, tmp_path) as running:
        live = await at.open("count", items=30, gap=0.02)
        await first_item(live)
        running.terminate()
        frames = await at.frames(live)
        assert data(frames) == list(range(30))
        with anyio.fail_after(10):
            assert await running.wait() == 0
        assert await away(at) < 1.0
