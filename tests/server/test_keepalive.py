"""Silent streams show a sign of life within the period, busy ones are left alone."""

from __future__ import annotations

import anyio
import pytest

from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.server.keepalive import KeepAlive
from penstock.testing import FakeClock

pytestmark = pytest.mark.anyio


async def test_a_silent_reader_is_nudged_once_per_period() -> None:
    clock = FakeClock()
    keepalive = KeepAlive(clock, period_s=15)
    runtime, go = Runtime(), anyio.Event()

    @runtime.streaming_command("silent")
    async def silent():  # type: ignore[no-untyped-def]
        await go.wait()
        yield "spoke"

    with anyio.fail_after(5):
        async with App(runtime) as app:
            live = await app.open(Start(command="silent", is_stream=True), LOCAL)
            async with live.reader() as reader:
                with keepalive.watching(reader) as pulse:
                    assert (await reader.__anext__()).lines
                    batches = []

                    async def read() -> None:
                        async for batch in reader:
                            pulse.quiet = 0
                            batches.append(len(batch.lines))

                    async with anyio.create_task_group() as group:
                        group.start_soon(read)
                        await anyio.wait_all_tasks_blocked()
                        clock.advance(14.9)
                        await anyio.wait_all_tasks_blocked()
                        assert batches == []
                        clock.advance(0.2)
                        await anyio.wait_all_tasks_blocked()
                        assert batches == [0]
                        clock.advance(14)
                        await anyio.wait_all_tasks_blocked()
                        assert batches == [0]
                        clock.advance(1)
                        await anyio.wait_all_tasks_blocked()
                        assert batches == [0, 0]
                        go.set()
            assert sum(batches) == 2  # the item and the end
    clock.advance(15)
    assert clock.pending == 0  # nothing to look after, no timer
