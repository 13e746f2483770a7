"""A command that holds the event loop is named."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import anyio
import pytest

from penstock.calls.observer import Observer
from penstock.calls.waiting import wait_ended
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start
from penstock.runtime import watchdog
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.runtime.watchdog import Watchdog

pytestmark = pytest.mark.anyio


class Told(logging.Handler):
    """Lets a blocked command go once the watchdog has spoken."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.go.set()


async def test_the_command_and_its_line_are_named() -> None:
    told = Told()
    runtime = Runtime()

    def deep() -> None:
        told.go.wait(10)

    @runtime.streaming_command("holds")
    async def holds() -> AsyncIterator[int]:
        yield 1
        deep()
        yield 2

    log = logging.getLogger("penstock.watchdog")
    log.addHandler(told)
    try:
        async with App(runtime) as app:
            live = await app.open(Start(command="holds", is_stream=True), LOCAL)
            with anyio.fail_after(15):
                async with live.reader() as reader:
                    async for _ in reader:
                        pass
    finally:
        log.removeHandler(told)
    assert len(told.lines) == 1
    assert "command 'holds' has held the event loop" in told.lines[0]
    assert "test_watchdog.py" in told.lines[0]


async def test_a_loop_that_is_late_by_many_calls_blames_none_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = Runtime()

    @runtime.command("short")
    async def short() -> None:
        threading.Event().wait(0.002)  # each of them is short; together they are not

    delays = Delays()
    with caplog.at_level(logging.WARNING, "penstock.watchdog"):
        async with App(runtime, observer=delays) as app:
            for _ in range(5):
                calls = [await app.open(Start(command="short"), LOCAL) for _ in range(100)]
                for live in calls:
                    await wait_ended(live)
    assert max(delays.told) > 0.1
    assert caplog.text == ""


async def test_no_thread_is_left() -> None:
    runtime = Runtime()

    @runtime.command("quick")
    async def quick() -> None: ...

    before = set(threading.enumerate())
    async with App(runtime):
        (watchdog,) = set(threading.enumerate()) - before
        assert watchdog.name == "penstock-watchdog"
    watchdog.join(5)  # told to end; nobody waits for it on the event loop
    assert not watchdog.is_alive()


class ClosedMeanwhile(threading.Event):
    """Has the watchdog closed at the worst moment: when its thread is about to ask for a sign of life."""

    def __init__(self, dog: Watchdog) -> None:
        super().__init__()
        self.closing = threading.Thread(target=dog.close)
        self.begun = threading.Event()

    def clear(self) -> None:
        if not self.begun.is_set():
            self.closing.start()
            self.begun.set()
            self.wait(10)  # until `close` has set it, and waits for the thread
        super().clear()


async def test_it_closes_whatever_it_is_doing() -> None:
    dog = Watchdog([])
    dog._alive = alive = ClosedMeanwhile(dog)
    dog.wake()
    assert alive.begun.wait(10)
    alive.closing.join(10)  # the loop is held meanwhile, as `close` does, and gives no sign of life
    assert not alive.closing.is_alive()


async def test_closing_does_not_hold_the_loop_for_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "PAUSE_S", 60.0)
    dog = Watchdog([])
    looked = asyncio.Event()
    loop, asked = asyncio.get_running_loop(), dog._alive.set
    dog._alive.set = lambda: (asked(), loop.call_soon(looked.set))  # type: ignore[method-assign]
    dog.wake()
    with anyio.fail_after(5):
        await looked.wait()
    closing = threading.Thread(target=dog.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


class Delays(Observer):
    """Keeps what is told of the event loop."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.twice = asyncio.Event()

    def turned(self, after_s: float) -> None:
        self.told.append(after_s)
        if len(self.told) == 2:
            self.twice.set()


async def test_the_observer_is_told_how_long_the_loop_takes() -> None:
    delays = Delays()
    dog = Watchdog([], delays, held_s=10)
    try:
        dog.wake()
        threading.Event().wait(0.3)  # the loop is held, while its first sign of life is awaited
        with anyio.fail_after(5):
            await delays.twice.wait()
    finally:
        dog.close()
    assert min(delays.told) >= 0
    assert max(delays.told) >= 0.05
