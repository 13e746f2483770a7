"""Initialising again: idempotent, atomic, the old state cleaned after its last call (WIRE.md section 5)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from penstock.calls.live import Live
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime.abort import register_abort_callback, wait_for_aborts
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio


class Model:
    """What `initialize` makes: knows its name, and whether it was closed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = anyio.Event()

    def close(self) -> None:
        self.closed.set()


class Project:
    """A runtime whose `initialize` is counted, and whose `use` waits until it is let go."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.made: list[Model] = []
        self.aborted: list[tuple[str, str]] = []
        self.go = anyio.Event()
        self.runtime.command("initialize")(self.initialize)
        self.runtime.command("name")(self.name)
        self.runtime.streaming_command("use")(self.use)

    async def initialize(self, name: str = "first", secret: str = "") -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        if name == "broken":
            raise ValueError(name)
        model = Model(name)
        self.made.append(model)
        register_abort_callback(lambda request_id: self.aborted.append((name, request_id)))
        return {"model": model}

    async def name(self, model: Model = None) -> str:  # type: ignore[assignment]
        return model.name

    async def use(self, model: Model = None) -> AsyncIterator[str]:  # type: ignore[assignment]
        yield model.name
        await self.go.wait()
        yield model.name


async def ended(live: Live) -> dict[str, Any]:
    with anyio.fail_after(5):
        async with live.reader() as reader:
            async for batch in reader:
                if batch.ending is not None:
                    frame: dict[str, Any] = json.loads(batch.lines[-1])
                    return frame
    raise AssertionError("no terminal frame")


async def run(app: App, command: str, **given: Any) -> dict[str, Any]:
    return await ended(await app.open(Start(command=command, input=json.dumps(given).encode()), LOCAL))


async def test_the_arguments_in_force_answer_at_once() -> None:
    project = Project()
    async with App(project.runtime) as app:
        first = await run(app, "initialize")
        again = await run(app, "initialize", name="first")
        assert first["data"] == again["data"] == {"state": ["model"]}
        assert len(project.made) == 1


async def test_concurrent_initialisations_share_one_run() -> None:
    project = Project()
    async with App(project.runtime) as app:
        lives = [await app.open(Start(command="initialize"), LOCAL) for _ in range(20)]
        for live in lives:
            assert (await ended(live))["status"] == "completed"
        assert len(project.made) == 1


async def test_other_arguments_swap_and_the_old_state_outlives_its_calls() -> None:
    project = Project()
    async with App(project.runtime) as app:
        await run(app, "initialize")
        live = await app.open(Start(command="use", is_stream=True), LOCAL)
        async with live.reader() as reader:
            lines: list[bytes] = []
            while len(lines) < 2:
                lines += (await reader.__anext__()).lines
            await run(app, "initialize", name="second")
            assert (await run(app, "name"))["data"] == "second"
            old, new = project.made
            assert not old.closed.is_set()
            project.go.set()
            async for batch in reader:
                lines += batch.lines
        assert [json.loads(line)["data"] for line in lines[1:3]] == ["first", "first"]
        with anyio.fail_after(5):
            await old.closed.wait()
        assert not new.closed.is_set()
    assert new.closed.is_set()


async def test_a_failed_initialisation_leaves_the_state_in_force() -> None:
    project = Project()
    async with App(project.runtime) as app:
        await run(app, "initialize")
        failed = await run(app, "initialize", name="broken")
        assert (failed["status"], failed["code"]) == ("error", "command_failed")
        assert (await run(app, "name"))["data"] == "first"
        assert not project.made[0].closed.is_set()


async def test_the_old_state_is_cleaned_by_the_authors_cleanup() -> None:
    project = Project()
    cleaned: list[str] = []

    @project.runtime.command("cleanup")
    def cleanup(model: Model = None) -> None:  # type: ignore[assignment]
        assert not model.closed.is_set()
        cleaned.append(model.name)

    async with App(project.runtime) as app:
        await run(app, "initialize")
        await run(app, "initialize", name="second")
        with anyio.fail_after(5):
            await project.made[0].closed.wait()
        assert cleaned == ["first"]
        assert (await run(app, "cleanup"))["data"] == {"state": []}
        with anyio.fail_after(5):
            await project.made[1].closed.wait()
        assert cleaned == ["first", "second"]
    assert cleaned == ["first", "second"]


async def test_a_built_in_cleanup_drops_the_state() -> None:
    project = Project()
    async with App(project.runtime) as app:
        assert "cleanup" in (await app.describe()).commands
        await run(app, "initialize", name="other")
        assert (await run(app, "cleanup"))["data"] == {"state": []}
        with anyio.fail_after(5):
            await project.made[0].closed.wait()
        assert (await run(app, "name"))["data"] == "first"  # initialised anew, as it needs no argument


async def test_callbacks_belong_to_their_state() -> None:
    project = Project()
    async with App(project.runtime) as app:
        await run(app, "initialize")
        await run(app, "initialize", name="second")
        live = await app.open(Start(command="use", is_stream=True), LOCAL)
        async with live.reader() as reader:
            while live.log.next_seq < 2:
                await reader.__anext__()
            live.cancel(CancelReason.CALLER)
        assert (await ended(live))["status"] == "cancelled"
        wait_for_aborts()
    assert project.aborted == [("second", live.request_id)]


async def test_secrets_are_not_kept() -> None:
    project = Project()
    async with App(project.runtime) as app:
        live = await app.open(Start(command="initialize", input=b'{"secret": "hush-hush"}'), LOCAL)
        await ended(live)
        assert b"hush-hush" not in live.start.input
        assert all(b"hush-hush" not in line for line in live.log.read(-1, 1 << 20))
