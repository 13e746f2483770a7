"""With workers, `initialize` and `cleanup` reach all of them, and the server holds no state."""

from __future__ import annotations

import os
import signal
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from penstock.testing.journal import Journal

pytestmark = pytest.mark.anyio

TWO = "workers: 2\nstartup: [initialize]"
PROJECT = """
import os
from penstock import CommandError, Runtime
from penstock.testing.relay import RelayedJournal

rt = Runtime("manifest.yml")
journal = RelayedJournal()
counted = 0

class Voice:
    def __init__(self, key):
        self.key, self.pid = key, os.getpid()
    def close(self):
        journal.record(f"closed {self.key} {os.getpid()}", "voice")

@rt.command("initialize")
def initialize(key: str = "first"):
    global counted
    counted += 1
    journal.record(f"made {key} {os.getpid()}", "voice")
    if key == "bad in one":
        try:
            os.mkdir(os.path.join(os.path.dirname(__file__), "taken"))
        except FileExistsError:
            raise CommandError("one is enough")
    if key == "crash":
        os._exit(3)
    return {"voice": Voice(key)}

@rt.command("speak")
async def speak(voice: Voice = None):
    return {"key": voice.key, "made": voice.pid, "pid": os.getpid()}

@rt.command("count")
async def count():
    return counted
"""


async def keys(app: Any) -> dict[int, str]:
    """Return the state that each worker has, by its process."""
    seen = [await app.answer("speak") for _ in app.pids("speak")]
    assert all(one["made"] == one["pid"] for one in seen)
    return {one["pid"]: one["key"] for one in seen}


async def both(app: Any) -> list[int]:
    """Return the processes, once both are up."""
    with anyio.fail_after(20):
        while len(app.pids("speak")) < 2:
            await anyio.lowlevel.checkpoint()
    pids: list[int] = app.pids("speak")
    return pids


async def test_it_is_made_in_every_worker_and_not_in_the_server(isolate: Any, journal: Journal) -> None:
    async with isolate(code=PROJECT, manifest=TWO) as app:
        pids = app.pids("speak")
        assert set(journal.of("voice")) == {f"made first {pid}" for pid in pids}
        assert await keys(app) == dict.fromkeys(pids, "first")
        assert await app.answer("initialize") == {"state": ["voice"]}  # in force already
        assert len(journal.of("voice")) == 2
    for pid in pids:
        assert journal.count(f"closed first {pid}", "voice") == 1


async def test_it_runs_in_the_workers_also_where_no_command_takes_state(isolate: Any) -> None:
    code = PROJECT.replace('@rt.command("speak")', "")
    async with isolate(code=code, manifest=TWO) as app:
        assert [await app.answer("count") for _ in range(4)] == [1] * 4


async def test_the_first_call_that_needs_it_initialises_all(isolate: Any, journal: Journal) -> None:
    async with isolate(code=PROJECT, manifest="workers: 2") as app:
        assert await keys(app) == dict.fromkeys(app.pids("speak"), "first")
        assert len(journal.of("voice")) == 2


async def test_another_input_swaps_it_in_all(isolate: Any, journal: Journal) -> None:
    async with isolate(code=PROJECT, manifest=TWO) as app:
        pids = app.pids("speak")
        assert await app.answer("initialize", key="b") == {"state": ["voice"]}
        assert await keys(app) == dict.fromkeys(pids, "b")
        for pid in pids:
            with anyio.fail_after(20):
                await journal.wait(f"closed first {pid}", "voice")


async def test_a_respawned_worker_gets_the_last_one(isolate: Any) -> None:
    async with isolate(code=PROJECT, manifest=TWO) as app:
        await app.answer("initialize", key="b")
        for victim in app.pids("speak"):
            os.kill(victim, signal.SIGKILL)
            while victim in app.pids("speak"):
                await anyio.lowlevel.checkpoint()
            assert (await app.answer("speak"))["key"] == "b"  # by the other one
            pids = await both(app)
            assert await keys(app) == dict.fromkeys(pids, "b")


async def test_one_that_is_down_meanwhile_comes_up_with_the_new_one(isolate: Any) -> None:
    async with isolate(code=PROJECT, manifest=TWO, backoff_s=0.5) as app:
        victim, other = app.pids("speak")
        os.kill(victim, signal.SIGKILL)
        while victim in app.pids("speak"):
            await anyio.lowlevel.checkpoint()
        assert await app.answer("initialize", key="b") == {"state": ["voice"]}
        assert app.pids("speak") == [other]
        pids = await both(app)
        assert await keys(app) == dict.fromkeys(pids, "b")


async def test_one_that_comes_up_meanwhile_is_brought_up_to_date(isolate: Any, journal: Journal) -> None:
    async with isolate(code=PROJECT, manifest=TWO) as app:
        [first, _] = app.app._isolation.pool("speak").supervisors
        os.kill(first.process.pid, signal.SIGKILL)
        made = len(journal.of("voice"))
        with anyio.fail_after(20):
            while len(journal.of("voice")) == made:  # it is being given the state that was in force
                await anyio.lowlevel.checkpoint()
        await app.answer("initialize", key="b")
        pids = await both(app)
        assert await keys(app) == dict.fromkeys(pids, "b")
        await app.answer("initialize", key="c")
        assert await keys(app) == dict.fromkeys(pids, "c")


@pytest.mark.parametrize("key", ["bad in one", "crash"])
async def test_one_that_fails_changes_nothing_in_any(isolate: Any, key: str) -> None:
    async with isolate(code=PROJECT, manifest=TWO) as app:
        last = (await app.run("initialize", key=key))[-1]
        assert (last.error, last.code) == ("one is enough", "command_failed") or last.code == "unavailable"
        assert (key == "crash") == (last.code == "unavailable")
        pids = await both(app)
        assert await keys(app) == dict.fromkeys(pids, "first")


async def test_cleanup_reaches_all(isolate: Any, journal: Journal) -> None:
    async with isolate(code=PROJECT, manifest=TWO) as app:
        pids = app.pids("speak")
        assert await app.answer("cleanup") == {"state": []}
        for pid in pids:
            with anyio.fail_after(20):
                await journal.wait(f"closed first {pid}", "voice")
        assert await keys(app) == dict.fromkeys(pids, "first")
        assert all(journal.count(f"made first {pid}", "voice") == 2 for pid in pids)


async def test_a_worker_that_dies_of_its_cleanup_is_clean(isolate: Any) -> None:
    dying = '@rt.command("cleanup")\ndef cleanup():\n    os._exit(3)\n'
    async with isolate(code=PROJECT + dying, manifest=TWO) as app:
        assert await app.answer("cleanup") == {"state": []}
        pids = await both(app)
        assert [await app.answer("count") for _ in pids] == [0, 0]


async def test_after_cleanup_a_new_worker_has_none(isolate: Any, journal: Journal) -> None:
    async with isolate(code=PROJECT, manifest=TWO) as app:
        await app.answer("cleanup")
        victim = app.pids("speak")[0]
        os.kill(victim, signal.SIGKILL)
        while victim in app.pids("speak"):
            await anyio.lowlevel.checkpoint()
        new = next(pid for pid in await both(app) if not journal.count(f"made first {pid}", "voice"))
        assert [await app.answer("count") for _ in range(2)].count(0) == 1
        assert journal.count(f"made first {new}", "voice") == 0
