"""`penstock run --kv-events`: another process follows what an engine's cache holds, over ZeroMQ."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import anyio.lowlevel
import httpx
import pytest

from penstock.calls.caches import Caches
from penstock.calls.engine_cache import EngineCache
from penstock.calls.tasks import TaskOwner
from penstock.kv import PrefixIndex, subscribe
from penstock.server.kv_publishing import KvPublishing, _moved

pytestmark = pytest.mark.anyio

ANYWHERE = "tcp://127.0.0.1:*"
TOLD = re.compile(r"the KV events of scripted are published at (\S+), replays at (\S+)")
READY = re.compile(r"ready on (http://\S+)")


class Process(NamedTuple):
    """A server, and where its events are."""

    http: str
    events: str
    replays: str


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[Process]:
    """Run the command line as people do, and stop it as they do."""
    engine = ("--engine", "scripted:tokens=4,kv_tokens=96")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock.cli", "run", *engine, "--port", "0", *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with anyio.fail_after(60):
            ready = READY.search((await process.stdout.readline()).decode())
            said = b""
            while (told := TOLD.search(said.decode())) is None:
                line = await process.stderr.readline()
                assert line, said.decode()
                said += line
        assert ready is not None
        yield Process(ready[1], told[1], told[2])
    finally:
        process.terminate()
        with anyio.fail_after(30):
            await process.communicate()


async def test_another_process_knows_what_is_cached() -> None:
    async with running("--kv-events", ANYWHERE, "--kv-replays", ANYWHERE) as server:
        async with httpx.AsyncClient(base_url=server.http) as http:

            async def ask(first: int) -> None:
                prompt = " ".join(f"word{number}" for number in range(first, first + 40))
                asked = {"command": "predict", "input": {"prompt": prompt, "max_tokens": 4}}
                assert (await http.post("/v2/execute", json=asked)).status_code == 200

            async def due() -> int:
                [engine] = (await http.get("/v2/kv")).json()["engines"]
                seq: int = engine["next_seq"]
                return seq

            await ask(0)  # before anybody listens: it is asked for once something else comes
            index, tasks = PrefixIndex(), TaskOwner()

            async def follow() -> None:
                async for batch in subscribe(server.events, server.replays, topic="scripted", after=-1):
                    index.take(batch.seq, batch.events)

            tasks.start(follow())
            with anyio.fail_after(60):
                for first in itertools.count(100, 100):
                    await ask(first)
                    with anyio.move_on_after(2):  # a subscription may come into force late
                        while index.next_seq < await due():
                            await anyio.lowlevel.checkpoint()
                    if first > 400 and index.next_seq == await due():
                        break
            await tasks.aclose()
            [engine] = (await http.get("/v2/kv")).json()["engines"]
        assert len(index.hashes("cpu")) == engine["devices"][0]["cached"]
        assert engine["evicted_blocks"]["memory_pressure"] >= 4


async def test_each_engine_has_an_address_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "penstock.kv")
    caches, known = Caches(), [EngineCache("fox", 64) for _ in range(3)]
    caches.add(known[0])
    publishing = KvPublishing(caches, ANYWHERE)
    await publishing.start()
    caches.add(known[1])
    with anyio.fail_after(10):
        while len(caplog.messages) < 2:
            await anyio.lowlevel.checkpoint()
    assert [message.partition(" are ")[0] for message in caplog.messages] == [
        "the KV events of fox",
        "the KV events of fox#2",
    ]
    caches.remove(known[0])
    with anyio.fail_after(10):
        while len(publishing._published) > 1:
            await anyio.lowlevel.checkpoint()
    await publishing.aclose()
    caches.add(known[2])  # nobody listens any more


async def test_an_address_in_use_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caches, cache = Caches(), EngineCache("fox", 64)
    caches.add(cache)
    publishing = KvPublishing(caches, "tcp://192.0.2.1:5557")
    await publishing.start()
    with anyio.fail_after(10):
        while not caplog.messages:
            await anyio.lowlevel.checkpoint()
    assert caplog.messages[0].startswith("the KV events of fox cannot be published at tcp://192.0.2.1:5557")
    await publishing.aclose()


@pytest.mark.parametrize(
    ("endpoint", "moved"),
    [
        ("tcp://127.0.0.1:5557", "tcp://127.0.0.1:5559"),
        ("tcp://[::1]:5557", "tcp://[::1]:5559"),
        (ANYWHERE, ANYWHERE),
        ("ipc:///tmp/events", "ipc:///tmp/events"),
        ("", ""),
    ],
)
def test_the_next_engine_has_the_next_port(endpoint: str, moved: str) -> None:
    assert _moved(endpoint, 2) == moved
