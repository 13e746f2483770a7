"""Workers die; the server, and everybody else's calls, do not (P18), and no process is left behind (P19)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from behaviour.promises import promise
from penstock.calls.tasks import TaskOwner
from runtime.process.serving import BOUND_S, Server, is_zombie, serving

pytestmark = pytest.mark.anyio

TICKS = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as those of Unix sockets must be."""
    with tempfile.TemporaryDirectory(prefix="pen", dir="/tmp") as name:
        yield Path(name)


class Stream:
    """A streamed call, and its frames so far."""

    def __init__(self, server: Server, command: str, **given: object) -> None:
        self._url = str(server.http.base_url.join("/v2/execute"))
        self._body = {"command": command, "input": given, "is_stream": True}
        self.frames: list[dict[str, Any]] = []
        self.began = asyncio.Event()

    async def read(self) -> None:
        """Read it to its end."""
        async with (
            httpx.AsyncClient(timeout=BOUND_S) as client,
            client.stream("POST", self._url, json=self._body) as response,
        ):
            async for line in response.aiter_lines():
                self.frames.append(json.loads(line))
                if self.frames[-1]["status"] == "streaming":
                    self.began.set()

    def check(self) -> dict[str, Any]:
        """Return the last frame, of a stream that is whole."""
        statuses = [frame["status"] for frame in self.frames]
        items = len(statuses) - 2
        assert statuses[:-1] == ["accepted", *["streaming"] * items]
        assert statuses[-1] in ("completed", "error")
        assert [frame["seq"] for frame in self.frames] == list(range(items + 2))
        assert [frame["data"]["tick"] for frame in self.frames[1:-1]] == list(range(items))
        return self.frames[-1]


def kill(server: Server) -> None:
    """Kill a worker, as the system does when memory is short."""
    os.kill(server.children()[0], signal.SIGKILL)


def crash(command: str) -> Callable[[Server], None]:
    """Return what calls a command that ends its process."""

    def call(server: Server) -> None:
        response = server.call(command, k=1)
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        assert "retry-after" in response.headers

    return call


@promise("P18", "P1", "P3")
@pytest.mark.parametrize("end_one", [kill, crash("exit_at"), crash("segv_at")], ids=["kill", "exit", "segv"])
async def test_a_worker_that_dies_under_load_loses_its_own_calls_only(
    folder: Path, end_one: Callable[[Server], None]
) -> None:
    with serving(folder, workers=2) as server:
        before = server.children()
        assert len(before) == 2
        streams = [Stream(server, "ticker", n=TICKS, dt=0.05) for _ in range(8)]
        tasks = TaskOwner()
        readings = [tasks.start(stream.read()) for stream in streams]
        with anyio.fail_after(BOUND_S):
            for stream in streams:
                await stream.began.wait()
            await asyncio.to_thread(end_one, server)
            for probe in ("/livez", "/readyz", "/health"):
                assert (await asyncio.to_thread(server.http.get, probe)).status_code == 200
            for _ in range(6):
                assert (await asyncio.to_thread(answered, server, "whoami")).status_code == 200
            for reading in readings:
                await reading
        ends = [stream.check() for stream in streams]
        completed = [
            stream for stream, end in zip(streams, ends, strict=True) if end["status"] == "completed"
        ]
        lost = [end for end in ends if end["status"] == "error"]
        assert (len(completed), len(lost)) == (4, 4)
        assert all(len(stream.frames) == TICKS + 2 for stream in completed)
        assert {(end["code"], end["retryable"]) for end in lost} == {("unavailable", True)}


@promise("P18")
def test_one_that_holds_the_interpreter_lock_is_found_and_replaced(folder: Path) -> None:
    with serving(folder, workers=2) as server:
        before = set(server.children())
        assert server.first_item("gil_hold") == {"tick": 0}
        began = time.monotonic()
        while set(server.children()) == before or len(server.children()) < 2:
            assert server.http.get("/readyz").status_code == 200
            assert time.monotonic() - began < BOUND_S
        assert len(before & set(server.children())) == 1
        assert server.call("whoami").status_code == 200


@promise("P18")
def test_memory_that_runs_out_fails_its_call(folder: Path) -> None:
    with serving(folder, workers=2) as server:
        assert server.call("oom").json()["code"] in ("command_failed", "unavailable")
        assert [server.call("echo", value=n).json()["data"] for n in range(4)] == [0, 1, 2, 3]


@promise("P19")
@pytest.mark.parametrize("busy_with", [None, "gil_hold", "spin_loop", "freeze"])
def test_no_worker_outlives_a_killed_server(folder: Path, busy_with: str | None) -> None:
    with serving(folder, workers=2) as server:
        workers = server.children()
        assert len(workers) == 2
        if busy_with is not None:
            assert server.first_item(busy_with) == {"tick": 0}
        server.process.kill()
        server.process.wait(BOUND_S)
        until_gone(workers)


@promise("P19")
def test_a_server_that_stops_takes_its_workers_along(folder: Path) -> None:
    with serving(folder, workers=2) as server:
        workers = server.children()
        forked = server.first_item("fork_child")["pid"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(BOUND_S) == 0
        until_gone([*workers, forked])


@promise("P19")
def test_a_dead_worker_is_no_zombie(folder: Path) -> None:
    with serving(folder, workers=2) as server:
        for _ in range(2):
            victim = server.children()[0]
            os.kill(victim, signal.SIGKILL)
            until_gone([victim])
            while set((ready := server.http.get("/readyz")).json()["checks"].values()) != {"running"}:
                assert ready.status_code == 200
            assert not [pid for pid in server.children() if is_zombie(pid)]


def answered(server: Server, command: str) -> Any:
    """Call until the answer is no typed, retryable refusal: what was sent to a worker before the server could
    know of its death is lost with it."""
    until = time.monotonic() + BOUND_S
    while (answer := server.call(command)).status_code == 503 and time.monotonic() < until:
        assert (answer.json()["code"], answer.json()["retryable"]) == ("unavailable", True)
    return answer


def until_one_is_missed(server: Server, before: list[int]) -> None:
    """Return once the server has found that a worker has ended: until then calls may still go there."""
    until = time.monotonic() + BOUND_S
    while set(before) <= set(server.children()):
        assert time.monotonic() < until


def until_gone(pids: list[int]) -> None:
    """Return once these processes have ended; those that the server was to reap have been reaped."""
    until = time.monotonic() + BOUND_S
    for pid in pids:
        while Path(f"/proc/{pid}").exists() and not _of_nobody(pid):
            assert time.monotonic() < until


def _of_nobody(pid: int) -> bool:
    """Whether a process has ended whose parent is gone, so that reaping it is the system's matter."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, and before it was read
        return True
    return state == "Z" and parent == "1"
