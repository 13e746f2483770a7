"""Abort callbacks: exactly once per cancelled call, in threads of their own, never for a normal end (P4)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from penstock.protocol.messages import CancelReason
from penstock.runtime import abort
from penstock.runtime.abort import AbortCallbacks, CallAborts, owned_by, register_abort_callback
from penstock.runtime.context import current_call, get_request_id
from penstock.runtime.runtime import Runtime
from penstock.testing import FakeClock, Journal, Zoo

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    """Forget what a test registered for the whole process."""
    before = list(abort._unowned._callbacks)
    yield
    abort._unowned._callbacks[:] = before
    abort.wait_for_aborts()


@contextmanager
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def waiting_project(journal: Journal, during: Callable[[], object] = lambda: None) -> Runtime:
    """Return a project whose `predict` waits for its cancel, after doing something."""
    rt = Runtime()

    @rt.streaming_command("predict", concurrency=1)
    async def predict() -> AsyncIterator[int]:
        during()
        yield 1
        journal.record("waiting")
        await asyncio.Event().wait()

    @rt.command("quick")
    async def quick() -> int:
        current_call().on_abort(lambda rid: journal.record("own", rid))
        return 1

    @rt.command("broken")
    async def broken() -> int:
        current_call().on_abort(lambda rid: journal.record("own", rid))
        raise ValueError("no")

    return rt


async def heard(journal: Journal, event: str, request_id: str) -> None:
    with anyio.fail_after(5):
        await journal.wait(event, request_id)


# -- when ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", CancelReason)
async def test_each_reason_calls_back_once(serve: Any, reason: CancelReason) -> None:
    journal = Journal()
    register_abort_callback(lambda rid: journal.record("all", rid))
    rt = waiting_project(journal, lambda: current_call().on_abort(lambda rid: journal.record("own", rid)))
    async with serve(rt, clock=FakeClock()) as served:
        live = await served.open(timeout_s=9.0)
        await heard(journal, "waiting", live.request_id)
        live.cancel(reason)
        live.cancel(CancelReason.CALLER)
        await served.frames(live)
        live.cancel(CancelReason.CALLER)
        await heard(journal, "all", live.request_id)
        await heard(journal, "own", live.request_id)
    await asyncio.to_thread(abort.wait_for_aborts)
    assert sorted(journal.of(live.request_id)) == ["all", "own", "waiting"]


@pytest.mark.parametrize("command", ["quick", "broken"])
async def test_a_call_that_ended_by_itself_never_calls_back(serve: Any, command: str) -> None:
    journal = Journal()
    register_abort_callback(lambda rid: journal.record("all", rid))
    async with serve(waiting_project(journal)) as served:
        live = await served.open(command)
        await served.frames(live)
        assert live.cancel(CancelReason.CALLER) == "already_finished"
    await asyncio.to_thread(abort.wait_for_aborts)
    assert journal.of(live.request_id) == ()


async def test_a_queued_call_calls_back_too(serve: Any) -> None:
    journal = Journal()
    register_abort_callback(lambda rid: journal.record("all", rid))
    async with serve(waiting_project(journal)) as served:
        running, queued = await served.open(), await served.open()
        await heard(journal, "waiting", running.request_id)
        queued.cancel(CancelReason.CALLER)
        await heard(journal, "all", queued.request_id)
        await served.frames(queued)
        assert journal.of(running.request_id) == ("waiting",)


async def test_a_callback_that_comes_after_the_cancel_is_called_at_once_and_alone(serve: Any) -> None:
    journal = Journal()
    rt = Runtime()

    @rt.command("predict")
    async def predict() -> None:
        call = current_call()
        early = lambda rid: journal.record("early", rid)  # noqa: E731
        call.on_abort(early)
        try:
            journal.record("waiting")
            await asyncio.Event().wait()
        finally:
            call.on_abort(early)
            call.on_abort(lambda rid: journal.record("late", rid))

    async with serve(rt) as served:
        live = await served.open()
        await heard(journal, "waiting", live.request_id)
        live.cancel(CancelReason.CALLER)
        await served.frames(live)
        await heard(journal, "late", live.request_id)
    await asyncio.to_thread(abort.wait_for_aborts)
    assert journal.count("early", live.request_id) == 1
    assert journal.count("late", live.request_id) == 1


async def test_the_zoo_says_so_too(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        await served.run("ticker")
        live = await served.open("silent")
        await heard(zoo.journal, "started", live.request_id)
        live.cancel(CancelReason.CALLER)
        await heard(zoo.journal, "aborted", live.request_id)
        await served.frames(live)
    assert zoo.journal.count("aborted") == 1


# -- how -----------------------------------------------------------------------------------------------


async def test_slow_and_raising_callbacks_delay_and_harm_nobody(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    journal, gate = Journal(), threading.Event()
    register_abort_callback(lambda _: gate.wait(5))
    register_abort_callback(lambda _: 1 / 0)
    register_abort_callback(lambda rid: journal.record("all", rid))
    async with serve(waiting_project(journal)) as served:
        live = await served.open()
        await heard(journal, "waiting", live.request_id)
        with caplog.at_level(logging.ERROR):
            live.cancel(CancelReason.CALLER)
            assert (await served.frames(live))[-1].status == "cancelled"
            await heard(journal, "all", live.request_id)
            gate.set()
            await asyncio.to_thread(abort.wait_for_aborts)
    assert "ZeroDivisionError" in caplog.text


async def test_callbacks_run_off_the_loop_each_in_its_own_thread(serve: Any) -> None:
    both = threading.Barrier(2, timeout=5)
    seen: list[tuple[int, str | None]] = []

    def meet(_: str) -> None:
        seen.append((threading.get_ident(), get_request_id()))
        both.wait()

    register_abort_callback(lambda rid: meet(rid))
    register_abort_callback(lambda rid: meet(rid))
    journal = Journal()
    async with serve(waiting_project(journal)) as served:
        live = await served.open()
        await heard(journal, "waiting", live.request_id)
        live.cancel(CancelReason.CALLER)
        await served.frames(live)
        await asyncio.to_thread(abort.wait_for_aborts)
    threads = {ident for ident, _ in seen}
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_a_thread_that_cannot_start_does_not_keep_the_call_alive(
    serve: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal()
    register_abort_callback(lambda rid: journal.record("all", rid))
    async with serve(waiting_project(journal)) as served:
        live = await served.open()
        await heard(journal, "waiting", live.request_id)
        with no_more_threads(monkeypatch):
            live.cancel(CancelReason.CALLER)
        assert (await served.frames(live))[-1].status == "cancelled"
        assert served.permits == 0
    assert "could not start" in caplog.text
    await asyncio.to_thread(abort.wait_for_aborts)


# -- whose ---------------------------------------------------------------------------------------------


async def test_one_registered_twice_is_called_once(serve: Any) -> None:
    journal = Journal()

    def callback(request_id: str) -> None:
        journal.record("all", request_id)

    register_abort_callback(callback)
    register_abort_callback(callback)
    async with serve(waiting_project(journal)) as served:
        live = await served.open()
        await heard(journal, "waiting", live.request_id)
        live.cancel(CancelReason.CALLER)
        await served.frames(live)
        await asyncio.to_thread(abort.wait_for_aborts)
    assert journal.count("all") == 1


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_one_registered_in_initialize_belongs_to_its_project(serve: Any, kind: str) -> None:
    journal = Journal()
    rt, other = waiting_project(journal), waiting_project(journal)

    def register() -> dict[str, Any]:
        register_abort_callback(lambda rid: journal.record("mine", rid))
        return {}

    if kind == "def":
        rt.command("initialize")(register)
    else:

        @rt.command("initialize")
        async def initialize() -> dict[str, Any]:
            return register()

    async with serve(rt) as served, serve(other) as elsewhere:
        await served.run("initialize")
        mine, theirs = await served.open(), await elsewhere.open()
        for live in (mine, theirs):
            await heard(journal, "waiting", live.request_id)
            live.cancel(CancelReason.CALLER)
        await served.frames(mine)
        await elsewhere.frames(theirs)
        await heard(journal, "mine", mine.request_id)
        await asyncio.to_thread(abort.wait_for_aborts)
    assert journal.of(theirs.request_id) == ("waiting",)


def test_one_registered_while_a_project_loads_belongs_to_it() -> None:
    owner = AbortCallbacks()
    with owned_by(owner):
        register_abort_callback(print)
    assert owner._callbacks == [print]
    assert print not in abort._unowned._callbacks


@pytest.mark.parametrize("add", [AbortCallbacks().add, CallAborts("0" * 32).add, register_abort_callback])
def test_what_cannot_be_called_is_refused(add: Callable[[Any], None]) -> None:
    with pytest.raises(TypeError, match="cannot be called"):
        add("not a function")


def test_two_threads_racing_to_register_and_fire_call_each_once() -> None:
    for _ in range(200):
        called: list[int] = []
        aborts = CallAborts("0" * 32)
        gate = threading.Barrier(2)
        callbacks = [lambda _, i=i, called=called: called.append(i) for i in range(4)]

        def register(
            aborts: CallAborts = aborts, gate: threading.Barrier = gate, every: list[Any] = callbacks
        ) -> None:
            gate.wait()
            for callback in every:
                aborts.add(callback)

        thread = threading.Thread(target=register)
        thread.start()
        gate.wait()
        aborts.fire()
        aborts.fire()
        thread.join()
        abort.wait_for_aborts()
        assert sorted(called) == [0, 1, 2, 3]


def test_one_registered_while_its_call_is_cut_is_called_once() -> None:
    for _ in range(200):
        called: list[str] = []
        owner, aborts, gate = AbortCallbacks(), CallAborts("0" * 32), threading.Barrier(2)

        def register(
            owner: AbortCallbacks = owner,
            aborts: CallAborts = aborts,
            gate: threading.Barrier = gate,
            callback: Callable[[str], None] = called.append,
        ) -> None:
            gate.wait()
            owner.add(callback)
            aborts.catch_up(callback)

        thread = threading.Thread(target=register)
        thread.start()
        gate.wait()
        aborts.fire((owner,))
        thread.join()
        aborts.catch_up(called.append)
        abort.wait_for_aborts()
        assert called == ["0" * 32]
