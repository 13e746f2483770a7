"""``isolation: thread``: async commands that block hold nobody up, and a cancel still reaches them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from penstock.protocol.messages import CancelReason
from penstock.runtime.context import current_call, get_request_id
from penstock.runtime.manifest import Manifest
from penstock.runtime.own_loop import OwnLoop
from penstock.runtime.runtime import Runtime
from penstock.testing import Journal

pytestmark = pytest.mark.anyio


class Blocking:
    """A project whose async commands block, each in a thread of its own."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.released = threading.Event()
        names = ("block", "items", "wait", "where", "plain", "cleanup_that_waits", "sum_up")
        settings = {name: {"isolation": "thread"} for name in names}
        self.runtime = rt = Runtime(Manifest.model_validate({"commands": settings}))
        rt.command("block")(self.block)
        rt.streaming_command("items")(self.items)
        rt.streaming_command("wait")(self.wait)
        rt.command("where")(self.where)
        rt.command("plain")(self.plain)
        rt.streaming_command("cleanup_that_waits")(self.cleanup_that_waits)
        rt.command("sum_up")(self.sum_up)
        rt.command("echo")(self.echo)

    async def sum_up(self, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            total += number
            self.journal.record("taken")
        return total

    async def echo(self) -> str:
        return "here"

    async def block(self) -> str:
        self.journal.record("started")
        self.released.wait(30)
        return "released"

    async def items(self, n: int, block_at: int = -1, raise_at: int = -1) -> AsyncIterator[int]:
        for i in range(n):
            if i == block_at:
                self.journal.record("blocked")
                self.released.wait(30)
            if i == raise_at:
                raise ValueError("no")
            yield i

    async def wait(self, items: int = 0) -> AsyncIterator[int]:
        try:
            for i in range(items):
                yield i
            self.journal.record("started")
            await asyncio.Event().wait()
        finally:
            self.journal.record("stopped", current_call().request_id)

    async def cleanup_that_waits(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            self.journal.record("cleaned")

    async def where(self) -> dict[str, Any]:
        current_call().progress(0.5)
        inside = await asyncio.to_thread(get_request_id)
        return {"thread": threading.current_thread().name, "id": get_request_id(), "inside": inside}

    def plain(self) -> str:
        return threading.current_thread().name


@pytest.fixture
def blocking() -> Any:
    project = Blocking()
    yield project
    project.released.set()


async def test_what_blocks_holds_nobody_up(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime) as served:
        live = await served.open("block")
        with anyio.fail_after(5):
            await blocking.journal.wait("started")
        assert await served.answer("echo") == "here"
        blocking.released.set()
        (*_, last) = await served.frames(live)
    assert last.data == "released"


async def test_items_leave_before_it_blocks(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime) as served:
        live = await served.open("items", n=5, block_at=3)
        with anyio.fail_after(5):
            await blocking.journal.wait("blocked")
            while live.log.next_seq < 4:
                await anyio.lowlevel.checkpoint()
        blocking.released.set()
        frames = await served.frames(live)
    assert [frame.data for frame in frames if frame.status == "streaming"] == list(range(5))


async def test_many_items_come_in_order(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime, window=10_000) as served:
        live = await served.open("items", n=20_000)
        total = 0
        async with live.reader() as reader:
            async for batch in reader:
                total += len(batch.lines)
        (*_, last) = await served.frames(live)
    assert total == 20_002
    assert last.metrics is not None
    assert last.metrics["items"] == 20_000


async def test_an_exception_ends_it(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime) as served:
        frames = await served.run("items", n=5, raise_at=2)
    assert [frame.data for frame in frames[1:-1]] == [0, 1]
    assert (frames[-1].error, frames[-1].code) == ("items failed (ValueError)", "command_failed")


async def test_it_knows_its_call(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime) as served:
        live = await served.open("where", notes=True)
        frames = await served.frames(live)
    answer = frames[-1].data
    assert answer["thread"].startswith("penstock-command-")
    assert answer["id"] == answer["inside"] == live.request_id
    assert "progress" in [frame.status for frame in frames]


async def test_sync_commands_run_in_a_thread_anyway(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime) as served:
        assert (await served.answer("plain")).startswith("penstock-command-")


@pytest.mark.parametrize("items", [0, 1, 500])
async def test_a_cancel_reaches_it(serve: Any, blocking: Blocking, items: int) -> None:
    async with serve(blocking.runtime) as served:
        live = await served.open("wait", items=items)
        with anyio.fail_after(5):
            await blocking.journal.wait("started")
        live.cancel(CancelReason.CALLER)
        (*_, last) = await served.frames(live)
        await served.settled()
        assert last.status == "cancelled"
        assert blocking.journal.count("stopped", live.request_id) == 1
        assert served.permits == 0


async def test_a_cancel_while_it_is_held_back_lets_it_clean_up(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime, window=2000) as served:
        for _ in range(20):
            live = await served.open("cleanup_that_waits")
            async with live.reader() as reader:
                await reader.__anext__()
                await reader.__anext__()
                live.cancel(CancelReason.CALLER)
            await served.frames(live)
            await served.settled()
        assert blocking.journal.count("cleaned") == 20


async def test_a_cancel_that_comes_before_the_thread_starts(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime) as served:
        for turns in range(12):
            live = await served.open("wait")
            for _ in range(turns):
                await asyncio.sleep(0)
            live.cancel(CancelReason.CALLER)
            (*_, last) = await served.frames(live)
            assert last.status == "cancelled"
            await served.settled()
        assert blocking.journal.count("started") == blocking.journal.count("stopped")


async def test_it_takes_a_stream(serve: Any, blocking: Blocking) -> None:
    async with serve(blocking.runtime) as served:
        live = await served.open("sum_up", more_input=True, numbers=[1])
        for number in range(2, 501):
            live.send(b"%d" % number)
            if number % 50 == 0:
                with anyio.fail_after(5):
                    await blocking.journal.wait("taken", times=number)
        live.end_input()
        (*_, last) = await served.frames(live)
    assert last.data == sum(range(501))


async def test_the_watchdog_leaves_it_alone(
    serve: Any, blocking: Blocking, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(blocking.runtime) as served:
        assert [c.command.name for c in served.app._commands.values() if c.on_the_loop] == ["echo"]


def test_a_loop_runs_once_and_is_cancelled_from_outside() -> None:
    loop = OwnLoop(lambda: None)
    started = threading.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    def cancel_when(event: threading.Event, cancel: Callable[[], None]) -> None:
        event.wait(5)
        cancel()

    thread = threading.Thread(target=cancel_when, args=(started, loop.cancel))
    thread.start()
    with pytest.raises(asyncio.CancelledError):
        loop.run(work)
    thread.join(5)
    loop.cancel()  # it is over: nothing happens


def test_a_loop_that_was_cancelled_runs_nothing() -> None:
    loop = OwnLoop(lambda: None)
    loop.cancel()
    ran = []

    async def work() -> None:
        ran.append(1)

    with pytest.raises(asyncio.CancelledError):
        loop.run(work)
    assert ran == []
