"""A server in a process of its own: stopped at any moment, and asked for ten times what it has room for."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from behaviour.processes import process
from behaviour.promises import promise
from behaviour.raw_http import Address, Connection, Reply
from penstock.calls.tasks import TaskOwner
from server.peer import Ended, Peer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform == "win32", reason="processes are signalled in the Unix way"),
]

STOPS = int(os.environ.get("PENSTOCK_STOPS", "4"))  # fifty with `make restarts`
WAIT_S = 30.0
DRAIN_S = 0.3
PERMITS, QUEUE = 4, 8
CAPACITY = PERMITS + QUEUE
TERMINAL = ("completed", "error", "cancelled")
PROJECT = f"""
import asyncio

from penstock import Runtime

rt = Runtime("manifest.yml")
let_go = asyncio.Event()


@rt.streaming_command("count", concurrency=64)
async def count(items: int):
    for i in range(items):
        yield {{"i": i}}
        await asyncio.sleep(0.002)


@rt.command("held", concurrency={PERMITS}, queue={QUEUE})
async def held(text: str):
    await let_go.wait()
    return len(text)


@rt.command("release")
async def release():
    let_go.set()
    let_go.clear()
"""
SERVER = ("--port", 0, "--allow-host", "test")  # what the bare clients of these tests call it


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "run.py").write_text(PROJECT)
    (tmp_path / "manifest.yml").write_text("name: project\nentrypoint: run.py\n")
    return tmp_path


def address_in(line: str) -> str:
    found = re.search(r"http://\S+", line)
    assert found is not None, line
    return found[0]


class Load:
    """Callers that call again and again, over HTTP and over WebSockets, until there is no server any more.

    Attributes:
        frames: How many came, over all.
        ends: How each call ended that was accepted; None for one without a terminal frame.
        closes: With what code each WebSocket was closed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._where = urlsplit(url)
        self.frames = 0
        self.ends: list[str | None] = []
        self.closes: list[int | None] = []
        self.refusals: set[tuple[int, str | None]] = set()
        self._more = asyncio.Event()

    async def reached(self, frames: int) -> None:
        with anyio.fail_after(WAIT_S):
            while self.frames < frames:
                self._more.clear()
                await self._more.wait()

    async def over_http(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=WAIT_S) as http:
            while await self._streamed(http):
                pass

    async def _streamed(self, http: httpx.AsyncClient) -> bool:
        asked = {"command": "count", "input": {"items": 40}, "is_stream": True}
        statuses: list[str] = []
        try:
            async with http.stream("POST", "/v2/execute", json=asked) as reply:
                if reply.status_code != 200:
                    self.refusals.add((reply.status_code, reply.headers.get("retry-after")))
                    return False
                async for line in reply.aiter_lines():
                    statuses.append(re.findall('"status":"([a-z]+)"', line)[0])
                    self._count()
        except httpx.TransportError:  # there is nobody; of a call that was accepted its end is missed below
            pass
        if not statuses:
            return False
        self.ends.append(statuses[-1] if statuses[-1] in TERMINAL else None)
        return True

    async def over_websocket(self) -> None:
        assert self._where.hostname is not None
        assert self._where.port is not None
        async with Peer.open((self._where.hostname, self._where.port)) as peer:
            assert peer.status == 101
            try:
                for number in itertools.count():
                    await self._call(peer, f"call-{number}")
            except Ended as end:
                self.closes.append(end.code)

    async def _call(self, peer: Peer, name: str) -> None:
        asked = {"command": "count", "input": {"items": 40}, "is_stream": True}
        peer.send("command", task_id=name, **asked)
        accepted = False
        try:
            while "seq" in (message := await peer.receive()):  # else it is refused: the server is stopping
                self._count()
                accepted = True
                if message["status"] in TERMINAL:
                    self.ends.append(message["status"])
                    return
        except Ended:
            self.ends += [None] if accepted else []
            raise

    def _count(self) -> None:
        self.frames += 1
        self._more.set()


@promise("P22", "P1")
@pytest.mark.parametrize("seed", range(STOPS))
async def test_whenever_a_server_is_stopped_every_call_has_its_end(project: Path, seed: int) -> None:
    settings = {"PENSTOCK_DRAIN_S": str(DRAIN_S)}
    tasks, moment = TaskOwner(), random.Random(seed).randrange(400)
    async with process("run", project, *SERVER, settings=settings) as (server, line):
        load = Load(address_in(line))
        callers = [load.over_http() for _ in range(6)] + [load.over_websocket() for _ in range(3)]
        calling = [tasks.start(caller, awaited=True) for caller in callers]
        await load.reached(moment)
        server.send_signal(signal.SIGTERM)
        with anyio.fail_after(WAIT_S):
            await asyncio.gather(*calling)
            assert await server.wait() == 0
    assert None not in load.ends
    assert load.ends
    assert set(load.ends) <= {"completed", "error"}
    assert set(load.closes) <= {1001, 1012}
    assert len(load.closes) == 3
    assert load.refusals <= {(503, "1")}
    await tasks.aclose()


def memory_kib(pid: int) -> int:
    """Return what a process has in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


async def ask(address: Address, method: str, path: str, body: bytes | None = None) -> Reply:
    connection = await Connection.open(address)
    connection.request(method, path, body)
    reply = await connection.reply(method)
    await connection.aclose()
    return reply


async def overload(address: Address) -> list[float]:
    """Ask for ten times as much as there is room for; return in how many seconds each refusal was there."""
    refused_s: list[float] = []
    all_refused = asyncio.Event()
    body = json.dumps({"command": "held", "input": {"text": "x" * 10_000}}).encode()

    async def call() -> int:
        began = time.perf_counter()
        reply = await ask(address, "POST", "/v2/execute", body)
        if reply.status == 429:
            refused_s.append(time.perf_counter() - began)
            assert 1 <= int(reply.headers["retry-after"]) <= 60
            if len(refused_s) == 9 * CAPACITY:
                all_refused.set()
        return reply.status

    tasks = TaskOwner()
    calls = [tasks.start(call(), awaited=True) for _ in range(10 * CAPACITY)]
    with anyio.fail_after(WAIT_S):
        await all_refused.wait()
        assert (await ask(address, "GET", "/readyz")).status == 200
        while sum(each.done() and each.result() == 200 for each in calls) < CAPACITY:
            assert (await ask(address, "POST", "/v2/execute", b'{"command": "release"}')).status == 200
    assert Counter([await each for each in calls]) == {200: CAPACITY, 429: 9 * CAPACITY}
    await tasks.aclose()
    return refused_s


@promise("P24")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read in /proc")
async def test_ten_times_as_much_as_there_is_room_for(project: Path) -> None:
    async with process("run", project, *SERVER, settings={}) as (server, line):
        at = urlsplit(address_in(line))
        sizes, refused_s = [], list[float]()
        for _ in range(8):
            refused_s += await overload((str(at.hostname), int(at.port or 0)))
            sizes.append(memory_kib(server.pid))
    assert max(sizes[2:]) - sizes[1] < 16 * 1024, sizes
    refused_s.sort()
    # The promise is 10 ms at the server; here 120 connections of one client wait for each other as well.
    assert refused_s[len(refused_s) // 2] < 1.0
