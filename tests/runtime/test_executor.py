"""Four kinds of function, and all that can happen to each: values, exceptions, junk, cancels."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import msgspec
import pytest

from penstock.calls.limits import KIB
from penstock.errors import CallError, CommandError, ErrorCode
from penstock.protocol.messages import CancelReason
from penstock.runtime.context import current_call
from penstock.runtime.runtime import Runtime
from penstock.testing import FakeClock, Zoo

pytestmark = pytest.mark.anyio
KINDS = ("def", "async def", "generator", "async generator")
Act = Callable[[int], Any]


def runtime(kind: str, act: Act, items: int = 3) -> Runtime:
    """Return a project whose `predict` gives ``act(0)``, ``act(1)`` … in one of the four ways."""
    rt = Runtime()
    if kind == "def":

        @rt.command("predict")
        def value() -> Any:
            return act(0)

    elif kind == "async def":

        @rt.command("predict")
        async def awaitable() -> Any:
            await asyncio.sleep(0)
            return act(0)

    elif kind == "generator":

        @rt.streaming_command("predict")
        def generator() -> Iterator[Any]:
            for i in range(items):
                yield act(i)

    else:

        @rt.streaming_command("predict")
        async def async_generator() -> AsyncIterator[Any]:
            for i in range(items):
                yield act(i)
                await asyncio.sleep(0)

    return rt


def streams(kind: str) -> bool:
    return "generator" in kind


def raising(error: BaseException, after: int) -> Act:
    def act(i: int) -> int:
        if i == after:
            raise error
        return i

    return act


# -- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_command_gives(serve: Any, kind: str, stream: bool) -> None:
    async with serve(runtime(kind, lambda i: {"n": i})) as served:
        live = await served.open(stream=stream)
        assert live.log.next_seq == 1  # accepted is there before any code has run
        frames = await served.frames(live)
    items = [{"n": 0}, {"n": 1}, {"n": 2}] if streams(kind) else []
    assert [f.data for f in frames if f.status == "streaming"] == items
    assert [f.seq for f in frames] == list(range(len(items) + 2))
    last = frames[-1]
    answer = msgspec.UNSET if streams(kind) and stream else {"n": 2 if streams(kind) else 0}
    assert (last.status, last.data) == ("completed", answer)
    assert last.metrics is not None
    assert last.metrics["items"] == len(items)


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_stream_of_nothing_completes(serve: Any, kind: str) -> None:
    async with serve(runtime(kind, lambda i: i, items=0)) as served:
        assert [f.status for f in await served.run()] == ["accepted", "completed"]
        assert await served.answer() is None


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_long_burst_arrives_whole_and_in_order(serve: Any, kind: str) -> None:
    async with serve(runtime(kind, lambda i: i, items=1000)) as served:
        frames = await served.run()
    assert [f.data for f in frames[1:-1]] == list(range(1000))


# -- exceptions ----------------------------------------------------------------------------------------

ERRORS: list[tuple[BaseException, str, str]] = [
    (ValueError("secret"), "command_failed", "predict failed (ValueError)"),
    (SystemExit(3), "command_failed", "predict failed (SystemExit)"),
    (asyncio.CancelledError(), "command_failed", "predict failed (CancelledError)"),
    (CommandError("out of ideas"), "command_failed", "out of ideas"),
    (CommandError("busy", "unavailable"), "unavailable", "busy"),
    (CallError("broke", ErrorCode.UPSTREAM_FAILED), "upstream_failed", "broke"),
    (CommandError(ValueError("told")), "command_failed", "told"),  # type: ignore[arg-type]
    (CommandError("half \ud83d"), "command_failed", "half \\ud83d"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=lambda x: type(x).__name__)
async def test_an_exception_is_one_typed_error_frame(
    serve: Any, kind: str, error: BaseException, code: str, text: str
) -> None:
    after = 2 if streams(kind) else 0
    async with serve(runtime(kind, raising(error, after))) as served:
        frames = await served.run()
        await served.settled()
        assert served.permits == 0
    assert [f.data for f in frames[1:-1]] == list(range(after))
    assert (frames[-1].status, frames[-1].code, frames[-1].error) == ("error", code, text)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_exception_before_the_first_item(serve: Any, kind: str) -> None:
    async with serve(runtime(kind, raising(KeyError("k"), 0))) as served:
        assert [f.status for f in await served.run()] == ["accepted", "error"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_iteration_out_of_author_code_is_an_error_not_an_end(serve: Any, kind: str) -> None:
    async with serve(runtime(kind, raising(StopIteration(), 0))) as served:
        assert (await served.run())[-1].code == "command_failed"


async def test_sys_exit_in_a_command_fails_that_call_only(serve: Any) -> None:
    rt = Runtime()

    @rt.command("leave")
    def leave() -> None:
        sys.exit(1)

    @rt.command("leave_async")
    async def leave_async() -> None:
        sys.exit("gone")

    @rt.command("stay")
    async def stay() -> str:
        return "here"

    async with serve(rt) as served:
        for name in ("leave", "leave_async"):
            assert (await served.run(name))[-1].error == f"{name} failed (SystemExit)"
        assert await served.answer("stay") == "here"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [float("nan"), b"x", object(), {"a": {"b": "\ud800"}}], ids=type)
async def test_what_is_no_json_is_invalid_output(serve: Any, kind: str, junk: object) -> None:
    after = 1 if streams(kind) else 0
    async with serve(runtime(kind, lambda i: junk if i == after else i)) as served:
        frames = await served.run()
        await served.settled()
        assert served.permits == 0
    assert [f.data for f in frames[1:-1]] == list(range(after))
    assert (frames[-1].status, frames[-1].code) == ("error", "invalid_output")


async def test_a_generator_is_closed_when_its_item_is_refused(serve: Any) -> None:
    closed: list[str] = []
    rt = Runtime()

    @rt.streaming_command("sync")
    def sync() -> Iterator[object]:
        try:
            yield object()
        finally:
            closed.append("sync")

    @rt.streaming_command("async")
    async def asynchronous() -> AsyncIterator[object]:
        try:
            yield object()
        finally:
            closed.append("async")

    async with serve(rt) as served:
        for name in ("sync", "async"):
            await served.run(name)
            await served.settled()
    assert closed == ["sync", "async"]


# -- cancels -------------------------------------------------------------------------------------------


async def test_a_call_cut_before_it_began_runs_no_author_code(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        lives = [await served.open(name) for name in ("echo", "ticker", "block")]
        for live in lives:
            live.cancel(CancelReason.CALLER)
        for live in lives:
            assert [f.status for f in await served.frames(live)] == ["accepted", "cancelled"]
        await served.settled()
        assert served.permits == 0
        assert [zoo.journal.of(live.request_id) for live in lives] == [()] * 3


async def test_cancelling_a_silent_stream_reaches_its_finally_and_its_callback(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        live = await served.open("silent")
        with anyio.fail_after(5):
            await zoo.journal.wait("started", live.request_id)
            assert live.cancel(CancelReason.CALLER) == "cancelled"
            frames = await served.frames(live)
            await zoo.journal.wait("aborted", live.request_id)
        assert [f.status for f in frames] == ["accepted", "cancelled"]
        assert sorted(zoo.journal.of(live.request_id)) == ["aborted", "cancelled", "started"]
        cancel = frames[-1].cancel
        assert cancel is not None
        assert cancel.delivered_at is not None
        assert cancel.requested_at <= cancel.delivered_at


async def test_an_item_yielded_after_the_cancel_comes_before_the_end(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime) as served:
        live = await served.open("late_yield_after_cancel")
        with anyio.fail_after(5):
            async with live.reader() as reader:
                await reader.__anext__()
                await reader.__anext__()
                await anyio.wait_all_tasks_blocked()
                live.cancel(CancelReason.CALLER)
                frames = await served.frames(live)
        assert [f.status for f in frames] == ["accepted", "streaming", "streaming", "cancelled"]
        await served.settled()
        assert served.permits == 0


async def test_code_that_ignores_its_cancel_keeps_its_permit_and_is_reported(
    serve: Any, zoo: Zoo, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with serve(zoo.runtime, clock=clock, cancel_grace_s=0.2) as served:
        live = await served.open("ignore_cancel")
        with anyio.fail_after(5):
            await zoo.journal.wait("started", live.request_id)
            await anyio.wait_all_tasks_blocked()
            live.cancel(CancelReason.CALLER)
            await zoo.journal.wait("ignored", live.request_id)
            assert (await served.frames(live))[-1].status == "cancelled"
            assert (await served.app.health()).checks == {}
            clock.advance(1)
            assert "still runs 0.2 s after its cancel" in caplog.text
            assert "in ignore_cancel" in caplog.text  # its stack
            assert served.permits == 1
            assert (await served.app.health()).checks == {"stuck": "1"}
            zoo.release()
            await served.settled()
        assert served.permits == 0
        assert (await served.app.health()).checks == {}
        cancel = live.record().cancel
        assert cancel["requested_at"] <= cancel["delivered_at"] < cancel["freed_at"]


async def test_a_deadline_cuts_the_call(serve: Any, zoo: Zoo) -> None:
    clock = FakeClock()
    async with serve(zoo.runtime, clock=clock) as served:
        live = await served.open("silent", timeout_s=30.0)
        with anyio.fail_after(5):
            await zoo.journal.wait("started", live.request_id)
            clock.advance(31)
            frames = await served.frames(live)
            await served.settled()
        assert frames[-1].code == "deadline_exceeded"
        assert "cancelled" in zoo.journal.of(live.request_id)


async def test_a_flood_waits_for_its_reader_and_stops_when_it_leaves(serve: Any, zoo: Zoo) -> None:
    async with serve(zoo.runtime, window=4 * KIB, kept_per_call=8 * KIB) as served:
        live = await served.open("flood")
        with anyio.fail_after(5):
            async with live.reader() as reader:
                for _ in range(5):
                    await reader.__anext__()
                    await anyio.wait_all_tasks_blocked()
                    assert live.log.kept_size < 16 * KIB
            await zoo.journal.wait("cancelled", live.request_id)
        await served.settled()
        assert served.permits == 0


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_reader_of_large_items_loses_none(serve: Any, kind: str) -> None:
    text = "x" * 4 * KIB
    rt = runtime(kind, lambda i: [i, text], items=300)
    async with serve(rt, window=8 * KIB, kept_per_call=16 * KIB) as served:
        live = await served.open()
        seen = 0
        with anyio.fail_after(10):
            async with live.reader() as reader:
                async for batch in reader:
                    assert batch.first_seq == seen
                    seen += len(batch.lines)
                    assert live.log.kept_size < 48 * KIB
        assert seen == 302


async def test_a_queued_call_is_told_its_place_and_leaves_it_when_cancelled(serve: Any) -> None:
    rt = Runtime()
    gate, started = asyncio.Event(), asyncio.Event()

    @rt.command("predict", concurrency=1, queue=2)
    async def predict() -> str:
        started.set()
        await gate.wait()
        return current_call().request_id

    async with serve(rt) as served:
        running, first, second = [await served.open(notes=True) for _ in range(3)]
        with pytest.raises(CallError, match="predict is busy"):
            await served.open()
        with anyio.fail_after(5):
            await started.wait()
            first.cancel(CancelReason.CALLER)
            assert [f.status for f in await served.frames(first)] == ["accepted", "queued", "cancelled"]
            assert served.permits == 2
            gate.set()
            frames = await served.frames(second)
        assert [(f.status, f.position) for f in frames[:2]] == [("accepted", None), ("queued", 2)]
        assert frames[-1].data == second.request_id
        assert (await served.frames(running))[-1].status == "completed"
        await served.settled()
        assert served.permits == 0
