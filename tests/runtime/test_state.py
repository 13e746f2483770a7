"""State: what `initialize` returns reaches commands by name; without it they are refused or it is run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from penstock.errors import AuthoringError, CallError, CommandError, ErrorCode
from penstock.protocol.messages import CancelReason
from penstock.runtime.context import current_call
from penstock.runtime.manifest import Manifest
from penstock.runtime.parameters import State
from penstock.runtime.runtime import Runtime
from penstock.testing import Journal

pytestmark = pytest.mark.anyio


class Engine:
    """Something to close."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Project:
    """A project with an `initialize` that a test holds up or lets fail."""

    def __init__(self, *, startup: bool = False, argument: bool = False) -> None:
        manifest = Manifest(name="p", startup=("initialize",) if startup else ())  # type: ignore[arg-type]
        self.rt = Runtime(manifest)
        self.journal = Journal()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: BaseException | None = None
        self.returned: Any = {"engine": Engine()}

        async def initialize() -> Any:
            self.journal.record("initialize", "project")
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            return self.returned

        async def initialize_with(size: int) -> Any:
            return {"engine": size}

        self.rt.command("initialize")(initialize_with if argument else initialize)

        @self.rt.command("predict")
        async def predict(engine: State[Engine] = None) -> bool:  # type: ignore[assignment]
            return engine is self.returned["engine"]

    @property
    def runs(self) -> int:
        return self.journal.count("initialize")


# -- injection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["def", "async def", "generator", "async generator"])
async def test_state_is_injected_by_name_into_every_kind(serve: Any, kind: str) -> None:
    engine, rt = Engine(), Runtime()

    @rt.command("initialize")
    def initialize() -> dict[str, Any]:
        return {"engine": engine, "unused": object()}

    if kind == "def":

        @rt.command("predict")
        def value(n: int, engine=None) -> list[Any]:  # type: ignore[no-untyped-def]
            return [n, id(engine)]

    elif kind == "async def":

        @rt.command("predict")
        async def awaitable(n: int, engine: Engine | None = None) -> list[Any]:
            return [n, id(engine)]

    elif kind == "generator":

        @rt.streaming_command("predict")
        def generator(n: int, engine: State[Engine]) -> Any:
            yield [n, id(engine)]

    else:

        @rt.streaming_command("predict")
        async def async_generator(n: int, engine: State[Engine]) -> AsyncIterator[list[Any]]:
            yield [n, id(engine)]

    async with serve(rt) as served:
        frames = await served.run("initialize")
        assert frames[-1].data == {"state": ["engine", "unused"]}
        assert await served.answer(n=3) == [3, id(engine)]
    assert engine.closed == 1


async def test_neither_values_nor_inputs_of_initialize_reach_wire_or_record(serve: Any) -> None:
    rt = Runtime()

    @rt.command("initialize")
    def initialize(api_key: str) -> dict[str, Any]:
        return {"secret": f"made of {api_key}"}

    async with serve(rt) as served:
        live = await served.open("initialize", api_key="s3cr3t")
        await served.frames(live)
        said = b"".join(live.log.read(-1, 1 << 30)) + repr(live.record()).encode()
        assert b"s3cr3t" not in said
        assert b"made of" not in said


async def test_a_state_with_a_default_goes_without(serve: Any) -> None:
    rt = Runtime()

    @rt.command("predict")
    async def predict(engine=None) -> bool:  # type: ignore[no-untyped-def]
        return engine is None

    async with serve(rt) as served:
        assert await served.answer() is True


# -- running it when it is needed ----------------------------------------------------------------------


async def test_the_first_call_that_needs_state_runs_initialize_once(serve: Any) -> None:
    project = Project()
    async with serve(project.rt) as served:
        assert project.runs == 0
        assert await served.answer() is True
        assert await served.answer() is True
        assert project.runs == 1


async def test_a_hundred_first_calls_run_it_once(serve: Any) -> None:
    project = Project()
    project.gate.clear()
    async with serve(project.rt) as served:
        lives = [await served.open() for _ in range(100)]
        with anyio.fail_after(5):
            await project.journal.wait("initialize")
            await anyio.wait_all_tasks_blocked()
            assert project.runs == 1
            project.gate.set()
            for live in lives:
                assert (await served.frames(live))[-1].data is True
        assert project.runs == 1


async def test_cancelling_the_call_that_began_it_does_not_begin_it_anew(serve: Any) -> None:
    project = Project()
    project.gate.clear()
    async with serve(project.rt) as served:
        first, second = await served.open(), await served.open()
        with anyio.fail_after(5):
            await project.journal.wait("initialize")
            await anyio.wait_all_tasks_blocked()
            first.cancel(CancelReason.CALLER)
            assert (await served.frames(first))[-1].status == "cancelled"
            third = await served.open()
            await anyio.wait_all_tasks_blocked()
            project.gate.set()
            for live in (second, third):
                assert (await served.frames(live))[-1].data is True
        assert project.runs == 1


async def test_a_failure_is_told_to_all_who_wait_and_tried_again_by_the_next(serve: Any) -> None:
    project = Project()
    project.gate.clear()
    project.failure = CommandError("no such model")
    async with serve(project.rt) as served:
        lives = [await served.open() for _ in range(10)]
        with anyio.fail_after(5):
            await project.journal.wait("initialize")
            await anyio.wait_all_tasks_blocked()
            project.gate.set()
            for live in lives:
                last = (await served.frames(live))[-1]
                assert (last.code, last.error) == (
                    "failed_precondition",
                    "initialize did not complete: no such model",
                )
        assert project.runs == 1
        project.failure = None
        assert await served.answer() is True
        assert project.runs == 2


async def test_an_initialize_that_needs_arguments_is_asked_of_the_caller(serve: Any) -> None:
    project = Project(argument=True)
    project.returned = {"engine": 7}
    async with serve(project.rt) as served:
        with pytest.raises(
            CallError, match="predict needs state: call `initialize` with size first"
        ) as error:
            await served.open()
        assert error.value.code is ErrorCode.FAILED_PRECONDITION
        assert served.permits == 0
        await served.run("initialize", size=7)
        assert await served.answer() is True


async def test_state_that_initialize_did_not_return_is_named(serve: Any) -> None:
    rt = Runtime()

    @rt.command("initialize")
    def initialize() -> dict[str, Any]:
        return {"other": 1}

    @rt.command("predict")
    async def predict(engine: State[Engine]) -> None: ...

    async with serve(rt) as served:
        last = (await served.run())[-1]
        assert (last.code, served.permits) == ("failed_precondition", 0)
        assert last.error == "predict needs engine, which `initialize` has not provided"


# -- what initialize may return ------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [5, "engine", [1], {1: 2}], ids=repr)
async def test_what_is_no_dict_of_names_is_refused(serve: Any, returned: Any) -> None:
    project = Project()
    project.returned = returned
    async with serve(project.rt) as served:
        last = (await served.run("initialize"))[-1]
        assert last.error == "initialize must return a dict of state names and values"


async def test_nothing_is_state_too(serve: Any) -> None:
    project = Project()
    project.returned = None
    async with serve(project.rt) as served:
        assert await served.answer("initialize") == {"state": []}


async def test_a_name_that_is_an_input_elsewhere_is_refused_with_the_fix(serve: Any) -> None:
    project = Project()
    project.returned = {"prompt": 1}

    @project.rt.command("chat")
    async def chat(prompt: str) -> str: ...

    async with serve(project.rt) as served:
        last = (await served.run("initialize"))[-1]
    assert last.code == "command_failed"
    assert last.error == (
        "initialize returns prompt, an input of chat; rename one of them, or name it under `state:` in the "
        "manifest"
    )


async def test_a_name_that_is_only_an_input_of_initialize_is_fine(serve: Any) -> None:
    rt = Runtime()

    @rt.command("initialize")
    def initialize(model: str = "small") -> dict[str, Any]:
        return {"model": [model]}

    @rt.command("predict")
    async def predict(model=None) -> Any:  # type: ignore[no-untyped-def]
        return model

    async with serve(rt) as served:
        await served.run("initialize", model="large")
        assert await served.answer() == ["large"]


# -- its life ------------------------------------------------------------------------------------------


async def test_initialize_ignores_disconnects(serve: Any) -> None:
    project = Project()
    project.gate.clear()
    async with serve(project.rt) as served:
        live = await served.open("initialize")
        async with live.reader():
            pass
        assert live.cancel_reason is None
        project.gate.set()
        assert (await served.frames(live))[-1].status == "completed"


async def test_values_are_closed_the_last_first_and_a_failure_stops_nothing(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    class Closing:
        def __init__(self, name: str) -> None:
            self.name = name

        async def aclose(self) -> None:
            closed.append(self.name)
            if self.name == "b":
                raise OSError("stuck")

    rt = Runtime()

    @rt.command("initialize")
    def initialize() -> dict[str, Any]:
        return {"a": Closing("a"), "b": Closing("b"), "kind": Closing, "plain": 5}

    async with serve(rt) as served:
        await served.run("initialize")
    assert closed == ["b", "a"]
    assert "stuck" in caplog.text


async def test_state_is_closed_after_the_calls_that_use_it(serve: Any) -> None:
    events: list[str] = []
    rt = Runtime()

    class Watched:
        def close(self) -> None:
            events.append("closed")

    @rt.command("initialize")
    def initialize() -> dict[str, Any]:
        return {"engine": Watched()}

    @rt.command("predict")
    async def predict(engine=None) -> None:  # type: ignore[no-untyped-def]
        try:
            events.append(current_call().command)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("left")

    async with serve(rt) as served:
        await served.open()
        with anyio.fail_after(5):
            while not events:
                await anyio.lowlevel.checkpoint()
    assert events == ["predict", "left", "closed"]


async def test_a_startup_that_fails_closes_what_it_opened(serve: Any) -> None:
    project = Project(startup=True)

    @project.rt.command("warm")
    async def warm() -> None:
        raise CommandError("cold")

    object.__setattr__(project.rt, "manifest", Manifest(name="p", startup=("initialize", "warm")))  # type: ignore[arg-type]
    with pytest.raises(AuthoringError, match="warm did not complete: cold"):
        async with serve(project.rt):
            pytest.fail("it must not come up")
    assert project.returned["engine"].closed == 1
