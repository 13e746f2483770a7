"""Processes that do not come up, and commands that cannot have one."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from penstock.calls.tasks import TaskOwner
from penstock.errors import AuthoringError
from penstock.runtime.app import App
from penstock.runtime.process import ProcessSettings
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

ONE = """
import os, sys, time
from penstock import Runtime
rt = Runtime("manifest.yml")

@rt.command("one")
async def one():
    return os.getpid()

if sys.modules["__main__"].__spec__ and sys.modules["__main__"].__spec__.name == "penstock.runtime.child":
    {}
"""


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("raise RuntimeError('not today')", "its project does not load: .*not today"),
        ("os._exit(9)", "exit code 9"),
        ("os.abort()", "exit code -6, SIGABRT"),
        ("rt._commands.clear()", "its project does not load: .*one"),
        ("raise SystemExit(5)", "one cannot run in a process of its own"),
        ("time.sleep(600)", "not ready 1 s after its start"),
    ],
)
async def test_a_process_that_does_not_come_up_is_a_failed_start(isolate: Any, there: str, why: str) -> None:
    with pytest.raises(AuthoringError, match=f"one cannot run in a process of its own: .*{why}|{why}"):
        async with isolate("one", code=ONE.format(there), start_s=1 if "sleep" in there else 60):
            raise AssertionError("it started")


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 50])
async def test_a_start_that_is_cancelled_leaves_nothing(isolate: Any, children: Any, turns: int) -> None:
    before = children()
    tasks = TaskOwner()
    starting = tasks.start(isolate("one", code=ONE.format("time.sleep(600)")).__aenter__(), awaited=True)
    with anyio.fail_after(20):
        while children() == before:  # until there is a process, and a little more
            await anyio.lowlevel.checkpoint()
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting


async def test_a_project_in_memory_cannot_be_isolated() -> None:
    runtime = Runtime()

    @runtime.command("one", isolation="process")
    async def one() -> None: ...

    with pytest.raises(AuthoringError, match=r"one: `isolation: process` needs a project on disk.*thread"):
        await App(runtime).start()


async def test_a_stream_of_input_cannot_be_isolated(isolate: Any) -> None:
    code = ONE.format("pass") + (
        "from collections.abc import AsyncIterator\n"
        '@rt.command("sum")\nasync def total(numbers: AsyncIterator[int]) -> int:\n    return 0\n'
    )
    with pytest.raises(AuthoringError, match=r"sum takes a stream of input.*thread"):
        async with isolate("sum", code=code):
            raise AssertionError("it started")


async def test_the_decorator_isolates_too_and_the_manifest_has_the_last_word(isolate: Any) -> None:
    code = ONE.replace('"one")', '"one", isolation="process")').format("pass")
    async with isolate(code=code) as app:
        assert await app.answer("one") == app.pid("one")
    async with isolate("one=inline", code=code) as app:
        assert await app.checks() == {}


def test_an_unknown_isolation_is_refused() -> None:
    with pytest.raises(AuthoringError, match="isolation is one of inline, thread, process"):
        Runtime().command("one", isolation="fork")(test_an_unknown_isolation_is_refused)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(vars(ProcessSettings())))
def test_settings_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be more than 0"):
        ProcessSettings(**{name: 0})
