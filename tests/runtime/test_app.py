"""The life of an app: it starts, serves, drains, closes; and it never says what is not so."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import msgspec
import pytest

from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.errors import AuthoringError, CallError, CommandError, ErrorCode
from penstock.protocol.dispatch import LOCAL, Caller, Dispatcher
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime
from penstock.testing import FakeClock, Journal, Zoo

pytestmark = pytest.mark.anyio


def project(*startup: str) -> Runtime:
    return Runtime(Manifest(name="demo", version="1.2", startup=startup))  # type: ignore[arg-type]


async def phase(app: App) -> tuple[str, str]:
    health = await app.health()
    return health.status, health.phase


# -- start ---------------------------------------------------------------------------------------------


async def test_until_it_has_started_it_refuses_and_says_what_it_does() -> None:
    journal, gate = Journal(), asyncio.Event()
    rt = project("warm")

    @rt.command("warm")
    async def warm() -> None:
        journal.record("warming")
        await gate.wait()

    app = App(rt)
    assert await phase(app) == ("starting", "not started")
    tasks = TaskOwner()
    starting = tasks.start(app.start())
    with anyio.fail_after(5):
        await journal.wait("warming")
        assert await phase(app) == ("starting", "startup: warm")
        with pytest.raises(CallError, match=r"demo is starting \(startup: warm\)") as refused:
            await app.open(Start(command="warm"), LOCAL)
        assert refused.value.code is ErrorCode.UNAVAILABLE
        assert refused.value.retry_after_s == 1
        gate.set()
        await starting
        assert await phase(app) == ("healthy", "ready")
        await app.aclose()


async def test_startup_commands_run_in_order_with_their_input() -> None:
    ran: list[Any] = []
    manifest = Manifest.model_validate(
        {"name": "demo", "startup": [{"command": "first", "input": {"n": 3}}, "second"]}
    )
    rt = Runtime(manifest)

    @rt.command("first")
    async def first(n: int) -> None:
        ran.append(n)

    @rt.command("second")
    def second() -> None:
        ran.append("second")

    async with App(rt):
        assert ran == [3, "second"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CommandError("no such model"), "warm did not complete: no such model"),
        (ValueError("x"), r"warm did not complete: warm failed \(ValueError\)"),
        (SystemExit(1), r"warm did not complete: warm failed \(SystemExit\)"),
    ],
    ids=["CommandError", "ValueError", "SystemExit"],
)
async def test_a_startup_command_that_fails_is_a_failed_start(error: BaseException, text: str) -> None:
    rt = project("warm")

    @rt.command("warm")
    def warm() -> None:
        raise error

    app = App(rt)
    with pytest.raises(AuthoringError, match=text):
        await app.start()
    assert await phase(app) == ("unhealthy", "failed: startup: warm")
    with pytest.raises(CallError, match="demo is unhealthy"):
        await app.open(Start(command="warm"), LOCAL)
    assert len(app._tasks) == 0


async def test_a_startup_command_that_is_cancelled_is_a_failed_start() -> None:
    journal = Journal()
    rt = project("warm")

    @rt.command("warm")
    async def warm() -> None:
        journal.record("warming")
        await asyncio.Event().wait()

    app = App(rt)
    tasks = TaskOwner()
    starting = tasks.start(app.start(), awaited=True)
    with anyio.fail_after(5):
        await journal.wait("warming")
        (record,) = app.tasks(LOCAL)
        await app.cancel(record.task_id, CancelReason.CALLER, LOCAL)
        with pytest.raises(AuthoringError, match="warm did not complete: it was cancelled"):
            await starting
    assert (await app.health()).status == "unhealthy"


async def test_an_input_the_startup_command_does_not_take_is_told() -> None:
    rt = Runtime(
        Manifest.model_validate({"name": "demo", "startup": [{"command": "warm", "input": {"n": 1}}]})
    )

    @rt.command("warm")
    def warm() -> None: ...

    with pytest.raises(AuthoringError, match="unknown input"):
        await App(rt).start()


async def test_a_startup_command_that_does_not_exist_is_told() -> None:
    rt = project("wram")

    @rt.command("warm")
    def warm() -> None: ...

    with pytest.raises(AuthoringError, match="wram"):
        await App(rt).start()


async def test_a_project_is_loaded_off_the_loop() -> None:
    loaded_in: list[int] = []

    def load(_: Any) -> Runtime:
        loaded_in.append(threading.get_ident())
        return project()

    async with App(load, manifest=Manifest(name="before")) as app:
        assert app.manifest.name == "demo"
    assert loaded_in != [threading.get_ident()]


async def test_what_a_project_raises_while_it_loads_comes_out() -> None:
    def load(_: Any) -> Runtime:
        raise ModuleNotFoundError("No module named 'torch'")

    app = App(load, manifest=Manifest(name="before"))
    with pytest.raises(ModuleNotFoundError, match="torch"):
        await app.start()
    assert await phase(app) == ("unhealthy", "failed: importing")


# -- serving -------------------------------------------------------------------------------------------


def test_an_app_is_a_dispatcher(zoo: Zoo) -> None:
    app: Dispatcher = App(zoo.runtime)
    assert isinstance(app, App)


async def test_unknown_commands_are_refused_naming_the_nearest(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        with pytest.raises(CallError, match=r"no command 'ehco'; did you mean echo\?") as refused:
            await served.open("ehco")
        assert refused.value.code is ErrorCode.NOT_FOUND
        with pytest.raises(CallError, match=r"known are .*echo"):
            await served.open("zzzzzz")
        assert len(served.app._store) == served.permits == 0


async def test_no_command_is_the_default_one(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        live = await served.open("", value=4)
        assert (await served.frames(live))[-1].data == 4
        assert (await served.frames(live))[0].command == "echo"


async def test_a_refused_call_leaves_nothing(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime, in_flight=1) as served:
        with pytest.raises(CallError, match="unknown input"):
            await served.open("echo", valu=1)
        live = await served.open("silent", task_id="t")
        with pytest.raises(CallError, match="1 calls are in flight"):
            await served.open("echo")
        assert served.permits == 1
        assert [record.task_id for record in served.app.tasks(LOCAL)] == ["t"]
        live.cancel(CancelReason.CALLER)
        await served.frames(live)


async def test_a_task_id_in_flight_is_a_conflict_and_takes_no_permit(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        await served.open("silent", task_id="t")
        with pytest.raises(CallError, match="task t is in flight") as refused:
            await served.open("echo", task_id="t")
        assert refused.value.code is ErrorCode.CONFLICT
        assert served.permits == 1


async def test_cancel_is_idempotent_by_either_id_and_only_for_its_key(serve: Any, zoo: Zoo) -> None:
    anna, ben = Caller(key="anna"), Caller(key="ben")
    async with serve(zoo.runtime) as served:
        live = await served.app.open(Start(command="silent", task_id="t"), anna)
        for call_id in ("t", live.request_id):
            with pytest.raises(CallError) as hidden:
                await served.app.cancel(call_id, CancelReason.CALLER, ben)
            assert hidden.value.code is ErrorCode.NOT_FOUND
        assert await served.app.cancel("t", CancelReason.CALLER, anna) == "cancelled"
        assert await served.app.cancel(live.request_id, CancelReason.CALLER, anna) == "cancelled"
        await served.frames(live)
        assert await served.app.cancel("t", CancelReason.CALLER, anna) == "already_finished"
        assert served.app.tasks(ben) == []


async def test_cancelling_some_disturbs_no_other(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        cut, whole = [], []
        for number in range(100):
            live = await served.open("ticker", n=20, task_id=f"t{number}")
            (cut if number % 10 == 0 else whole).append(live)
        await anyio.lowlevel.checkpoint()
        for live in cut:
            live.cancel(CancelReason.CALLER)
        for live in whole:
            frames = await served.frames(live)
            assert [f.data for f in frames[1:-1]] == [{"tick": i} for i in range(20)]
            assert frames[-1].status == "completed"
        for live in cut:
            assert (await served.frames(live))[-1].status == "cancelled"
            again = await served.run("echo", task_id=live.task_id, value=1)
            assert again[-1].data == 1
        await served.settled()
        assert served.permits == 0


async def test_what_it_serves_is_described(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        description = await served.app.describe()
        health = await served.app.health()
    assert (description.name, description.default_command) == ("zoo", "echo")
    assert set(description.commands) == set(zoo.runtime.commands)
    assert description.commands["ticker"].streaming
    assert not description.commands["echo"].streaming
    msgspec.json.encode(description)
    assert (health.status, health.in_flight, health.name) == ("healthy", 0, "zoo")


async def test_what_a_loader_brings_is_described_once_it_is_there(zoo: Zoo) -> None:
    app = App(lambda aborts: zoo.runtime)
    assert (await app.describe()).commands == {}
    async with app:
        described = await app.describe()
        assert set(described.commands) == set(zoo.runtime.commands)
        assert await app.describe() is described  # requests ask often


# -- drain and close -----------------------------------------------------------------------------------


async def test_drain_refuses_new_calls_and_waits_for_the_old(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        live = await served.open("block")
        with anyio.fail_after(5):
            await zoo.journal.wait("started", live.request_id)
            tasks = TaskOwner()
            draining = tasks.start(served.app.drain())
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(CallError, match=r"zoo is draining") as refused:
                await served.open("echo")
            assert refused.value.code is ErrorCode.UNAVAILABLE
            assert not draining.done()
            zoo.release()
            await draining
        assert (await served.frames(live))[-1].status == "completed"
        assert await phase(served.app) == ("draining", "draining")


async def test_drain_cuts_what_is_left_at_its_deadline(serve: Any, zoo: Zoo) -> None:
    clock = FakeClock()
    async with serve(zoo.runtime, clock=clock, drain_s=30.0) as served:
        live = await served.open("silent")
        with anyio.fail_after(5):
            await zoo.journal.wait("started", live.request_id)
            tasks = TaskOwner()
            draining = tasks.start(served.app.drain())
            await anyio.wait_all_tasks_blocked()
            clock.advance(29)
            await anyio.wait_all_tasks_blocked()
            assert not draining.done()
            clock.advance(2)
            await draining
        last = (await served.frames(live))[-1]
        assert (last.status, last.code, last.retryable) == ("error", "unavailable", True)


async def test_closing_gives_every_call_its_terminal_frame(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        lives = [await served.open(name) for name in ("silent", "flood", "echo", "ticker", "raise_at") * 5]
    for live in lives:
        assert live.ending is not None
        frames = await served.frames(live)
        assert frames[-1].status in ("completed", "error", "cancelled")
        assert sum(f.status in ("completed", "error", "cancelled") for f in frames) == 1


async def test_closing_leaves_neither_task_nor_thread_nor_timer(zoo: Zoo) -> None:
    before = set(threading.enumerate())
    tasks_before = asyncio.all_tasks()
    clock = FakeClock()
    app = App(zoo.runtime, clock=clock)
    await app.start()
    for command in ("echo", "silent", "ticker", "raise_at"):
        await app.open(Start(command=command, timeout_s=60.0), LOCAL)
    zoo.release()
    await app.open(Start(command="block"), LOCAL)
    await anyio.lowlevel.checkpoint()
    with anyio.fail_after(5):
        await app.aclose()
        await app.aclose()
        for thread in set(threading.enumerate()) - before:
            await asyncio.to_thread(thread.join, 5)
    assert asyncio.all_tasks() == tasks_before
    assert clock.pending == 0
    with pytest.raises(CallError, match="draining"):
        await app.open(Start(command="echo"), LOCAL)


async def test_an_app_that_never_started_can_be_closed(zoo: Zoo) -> None:
    await App(zoo.runtime).aclose()


async def test_state_held_by_a_call_that_does_not_stop_keeps_nothing_open() -> None:
    journal, gate, closed = Journal(), threading.Event(), []
    rt = Runtime()

    class Engine:
        def close(self) -> None:
            closed.append(True)

    @rt.command("initialize")
    def initialize() -> dict[str, Any]:
        return {"engine": Engine()}

    @rt.command("predict")
    def predict(engine=None) -> None:  # type: ignore[no-untyped-def]
        journal.record("inside")
        gate.wait(10)

    app = App(rt, limits=CallLimits(cancel_grace_s=0.05))
    with anyio.fail_after(5):
        await app.start()
        await app.open(Start(command="predict"), LOCAL)
        await journal.wait("inside")
        await app.aclose()
    assert closed == [True]
    gate.set()
