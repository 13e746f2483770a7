"""A manifest beside its commands: settings in force, and names that nothing has."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from penstock.errors import CallError, ErrorCode, ManifestError
from penstock.protocol.messages import CancelReason, OnDisconnect
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest, load_manifest
from penstock.runtime.runtime import Runtime
from penstock.testing import FakeClock

pytestmark = pytest.mark.anyio


def project(**manifest: Any) -> Runtime:
    """Return a project with the commands `predict(prompt, size=1)` and `hang()`."""
    rt = Runtime(Manifest.model_validate(manifest))

    @rt.streaming_command("predict")
    async def predict(prompt: str, size: int = 1) -> AsyncIterator[str]:
        for _ in range(size):
            yield prompt

    @rt.streaming_command("hang", concurrency=50)
    async def hang(items: int = 0) -> AsyncIterator[int]:
        for i in range(items):
            yield i
        await anyio.sleep_forever()

    return rt


async def refusals(rt: Runtime) -> list[str]:
    with pytest.raises(ManifestError) as refused:
        await App(rt).start()
    return [line.removeprefix("manifest: ") for line in str(refused.value).splitlines()]


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ({"startup": ["initialise"]}, "startup.0: there is no command 'initialise'; known are hang, predict"),
        (
            {"commands": {"predcit": {}}},
            "commands.predcit: there is no command 'predcit'; did you mean predict?",
        ),
        (
            {"default_command": "predikt"},
            "default_command: there is no command 'predikt'; did you mean predict?",
        ),
        (
            {"commands": {"hang": {"interrupt": True}}},
            "commands.hang.interrupt: hang is async: a cancel reaches it at its awaits; remove this",
        ),
    ],
)
async def test_names_that_nothing_has(manifest: dict[str, Any], says: str) -> None:
    assert await refusals(project(**manifest)) == [says]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"command": "predcit"}, "command: there is no command 'predcit'; did you mean predict?"),
        ({"input": {}}, "input: predict needs prompt; add it"),
        (
            {"input": {"prompt": "x", "sise": 2}},
            "input.sise: predict takes no such input; did you mean size?",
        ),
    ],
)
async def test_steps_that_do_not_fit_their_commands(step: dict[str, Any], says: str) -> None:
    steps = [{"id": "a", "command": "predict", **step}]
    (told,) = await refusals(project(workflows={"w": {"steps": steps}}))
    assert told == f"workflows.w.steps.0.{says}"


async def test_mistakes_of_a_file_have_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yml"
    path.write_text("name: a\ncommands:\n  predict: {queue: 1}\n  nope:\n    queue: 2\nstartup:\n- nope\n")
    rt = project()
    rt.manifest = load_manifest(path)
    with pytest.raises(ManifestError) as refused:
        await App(rt).start()
    assert [line.split(": ")[0] for line in str(refused.value).splitlines()] == [f"{path}:7", f"{path}:4"]


async def test_a_state_name_that_no_command_takes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "penstock.manifest"):
        async with App(project(state=["modle"])):
            pass
    assert caplog.messages == ["manifest: state.0: no command takes modle; there are none"]


@pytest.mark.parametrize(
    ("decorator", "manifest", "allowed"),
    [(False, None, False), (False, True, True), (True, None, True), (True, False, False)],
)
def test_the_manifest_says_whether_code_may_be_interrupted(
    decorator: bool, manifest: bool | None, allowed: bool
) -> None:
    rt = Runtime(Manifest.model_validate({"commands": {"plain": {"interrupt": manifest}}}))

    @rt.command("plain", interrupt=decorator)
    def plain() -> None: ...

    assert rt.bound_commands()["plain"].interrupt is allowed


async def test_concurrency_and_queue(serve: Any) -> None:
    async with serve(project(commands={"hang": {"concurrency": 1, "queue": 1}})) as served:
        lives = [await served.open("hang"), await served.open("hang")]
        with pytest.raises(CallError) as refused:
            await served.open("hang")
        assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
        for live in lives:
            live.cancel(CancelReason.CALLER)
            await served.frames(live)


@pytest.mark.parametrize(
    ("timeouts", "budget"),
    [
        ({"first_item_s": 3}, {"budget": "first_item", "limit_s": 3}),
        ({"total_s": 3}, {"budget": "total", "limit_s": 3}),
        ({"gap_s": 3, "total_s": 30, "first_item_s": 30}, {"budget": "gap", "limit_s": 3}),
    ],
)
async def test_timeouts(serve: Any, timeouts: dict[str, float], budget: dict[str, Any]) -> None:
    clock = FakeClock()
    async with serve(project(commands={"hang": {"timeouts": timeouts}}), clock=clock) as served:
        live = await served.open("hang", items=budget["budget"] == "gap")
        await anyio.wait_all_tasks_blocked()
        clock.advance(2.9)
        assert live.cancel_reason is None
        clock.advance(0.2)
        (*_, last) = await served.frames(live)
        assert (last.status, last.code, last.retryable) == ("error", "deadline_exceeded", True)
        assert last.details == [budget]


async def test_waiting_has_a_budget_too(serve: Any) -> None:
    clock = FakeClock()
    settings = {"concurrency": 1, "timeouts": {"queue_s": 3}}
    async with serve(project(commands={"hang": settings}), clock=clock) as served:
        first, second = await served.open("hang"), await served.open("hang")
        await anyio.wait_all_tasks_blocked()
        clock.advance(3)
        (*_, last) = await served.frames(second)
        assert last.details == [{"budget": "queue", "limit_s": 3}]
        assert first.cancel_reason is None
        first.cancel(CancelReason.CALLER)
        await served.frames(first)


@pytest.mark.parametrize(("own", "in_force"), [(None, 30), (3, 3), (300, 30)])
async def test_the_smaller_total_wins(serve: Any, own: float | None, in_force: float) -> None:
    async with serve(project(commands={"hang": {"timeouts": {"total_s": 30}}})) as served:
        live = await served.open("hang", timeout_s=own)
        assert live.start.timeout_s == in_force
        live.cancel(CancelReason.CALLER)
        await served.frames(live)


@pytest.mark.parametrize(
    ("own", "in_force"),
    [(None, OnDisconnect(5)), (OnDisconnect(0), OnDisconnect(0)), (OnDisconnect(None),) * 2],
)
async def test_a_calls_own_on_disconnect_wins(
    serve: Any, own: OnDisconnect | None, in_force: OnDisconnect
) -> None:
    async with serve(project(commands={"predict": {"on_disconnect": {"grace_s": 5}}})) as served:
        live = await served.open("predict", prompt="x", on_disconnect=own)
        assert live.start.on_disconnect == in_force
        await served.frames(live)
