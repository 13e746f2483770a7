"""A second cancel, however soon behind the first, leaves no connection open: the server would work on.

A call's deadline is kept by the call and by its engine, so that two come in one moment; a server that stops
cancels what it has cancelled before.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

import anyio
import anyio.lowlevel
import pytest

from engines.upstream.raw import STREAM, event
from engines.upstream.talk import call, end_of, good, hangs, piece, request, served
from engines.upstreams.asking import until
from engines.upstreams.sglang import SGLangServer
from penstock.calls.tasks import TaskOwner
from penstock.engines.base import Engine
from penstock.engines.sglang import open_sglang
from penstock.engines.upstream import exchange
from penstock.protocol.events import EngineDelta

pytestmark = pytest.mark.anyio

BEGUN = (STREAM, event(piece("one ")))
TURNS = range(12)


class Reader:
    """Reads an answer in a task of its own, up to where the server is silent."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._silent = asyncio.Event()
        self.task = TaskOwner().start(self._read(), awaited=True)

    async def _read(self) -> None:
        async with aclosing(self._engine.generate(request())) as events:
            async for told in events:
                if type(told) is EngineDelta:
                    self._silent.set()

    async def waits(self) -> None:
        """Return once it waits for the second token."""
        with anyio.fail_after(5):
            await self._silent.wait()
        await anyio.wait_all_tasks_blocked()


async def turns(count: int) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("between", TURNS)
async def test_a_second_cancel_leaves_no_connection_open(between: int) -> None:
    async with served(hangs(*BEGUN), capacity=1) as (server, engine):
        reader = Reader(engine)
        await reader.waits()
        reader.task.cancel()
        await turns(between)
        reader.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader.task
        await until(server.seen[0].gone.is_set)
        server.answer = good
        await end_of(engine)  # its place is free
        assert server.seen[1].number != server.seen[0].number


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not count cancels")
@pytest.mark.parametrize("between", TURNS)
async def test_the_engine_s_own_bound_does_not_break_into_a_cancel(
    between: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches = []

    class Known(exchange.Watch):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            watches.append(self)

    monkeypatch.setattr(exchange, "Watch", Known)
    async with served(hangs(*BEGUN), capacity=1) as (server, engine):
        with call(60.0) as around:
            reader = Reader(engine)
        await reader.waits()
        reader.task.cancel()
        await turns(between)
        watches[0].cut(engine.upstream.closed_error())  # as its timer does
        with pytest.raises(asyncio.CancelledError):
            await reader.task
        await until(server.seen[0].gone.is_set)
        assert around.confirmed == 1


@pytest.mark.parametrize("between", TURNS)
async def test_a_second_cancel_stops_no_abort_on_its_way(between: int) -> None:
    sglang = SGLangServer()
    sglang.gate.hold(after=1)
    async with sglang.running(), open_sglang(sglang.url) as engine:
        reader = Reader(engine)
        await reader.waits()
        reader.task.cancel()
        await turns(between)
        reader.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader.task
        await until(lambda: not sglang.live)
        await until(sglang.seen[0].connection.lost.is_set)
        assert len(sglang.aborts) == 1
        await until(lambda: not len(engine.tasks))
