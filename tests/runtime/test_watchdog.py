"""A command that holds the event loop is named."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator

import anyio
import pytest

from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

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


async def test_no_thread_is_left() -> None:
    runtime = Runtime()

    @runtime.command("quick")
    async def quick() -> None: ...

    async with App(runtime):
        assert any(thread.name == "penstock-watchdog" for thread in threading.enumerate())
    assert not any(thread.name == "penstock-watchdog" for thread in threading.enumerate())
