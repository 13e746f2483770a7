"""Runners in processes of their own, that are killed, stopped and held."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
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
async def process(
    at: Site, folder: Path, name: str = "one", inside: tuple[str, ...] = (), url: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A runner of `PROJECT`, as a process, which has dialled in."""
    (folder / "run.py").write_text(PROJECT)
    (folder / "manifest.yml").write_text(MANIFEST)
    there = sum(runner.takes for runner in at.hub.runners)
    dialled = url or at.cable.url
    command = [*inside, sys.executable, "-m", "penstock.cli", "runner", str(folder), "--gateway", dialled]
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


class Network:
    """A network of two hosts: this one, and one that only what is run `inside` is on."""

    def __init__(self) -> None:
        self.name = f"pnst{os.getpid()}"
        self._here, there = f"ph{os.getpid()}", f"pt{os.getpid()}"
        part = os.getpid() % 60 * 4
        self.host, self._peer = f"10.213.86.{part + 1}", f"10.213.86.{part + 2}"
        self.inside = ("ip", "netns", "exec", self.name)
        self._steps = (
            f"ip netns add {self.name}",
            f"ip link add {self._here} type veth peer name {there}",
            f"ip link set {there} netns {self.name}",
            f"ip addr add {self.host}/30 dev {self._here}",
            f"ip link set {self._here} up",
            f"ip -n {self.name} addr add {self._peer}/30 dev {there}",
            f"ip -n {self.name} link set {there} up",
            f"ip -n {self.name} link set lo up",
        )

    def make(self) -> bool:
        """Make it; returns whether this machine lets one."""
        return sys.platform == "linux" and shutil.which("ip") is not None and all(map(_done, self._steps))

    def remove(self) -> None:
        """Take it away."""
        _done(f"ip link del {self._here}")
        _done(f"ip netns del {self.name}")

    def drop(self, packets: bool) -> None:
        """Drop every packet from now on, or none any more; nobody is told."""
        verb = "add" if packets else "del"
        rest = " tbf rate 8bit burst 1 limit 1" if packets else ""
        assert _done(f"tc qdisc {verb} dev {self._here} root{rest}")


def _done(command: str) -> bool:
    return subprocess.run(command.split(), capture_output=True, timeout=10).returncode == 0


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    try:
        if not made.make():
            pytest.skip("this machine makes no networks: that needs Linux, root and the command `ip`")
        yield made
    finally:
        made.remove()


@promise("P23", "P12")
async def test_a_runner_whose_packets_are_dropped_is_away_and_goes_on(
    tmp_path: Path, network: Network
) -> None:
    async with site(host=network.host, heartbeat_s=HEARTBEAT_S) as at:
        url = f"ws://{at.address[0]}:{at.address[1]}"
        async with process(at, tmp_path, inside=network.inside, url=url):
            live = await at.open("count", items=200, gap=0.01)
            await first_item(live)
            network.drop(packets=True)
            assert await away(at) <= 3 * HEARTBEAT_S + 1.0
            network.drop(packets=False)
            frames = await at.frames(live)
            assert data(frames) == list(range(200))
            assert frames[-1]["status"] == "completed"
