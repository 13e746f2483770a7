"""Thousands of cancelled calls on one SGLang server: none hears another, and none is left at work there.

``make test`` cancels 1,000; ``make cancels`` 10,000 (``PENSTOCK_CANCELS`` says how many).
"""

from __future__ import annotations

import os
from collections import Counter

import anyio
import pytest

from engines.upstreams.asking import until
from engines.upstreams.sglang import SGLangServer
from penstock import AsyncClient
from penstock.compose import build_app
from penstock.errors import CallCancelled
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio

CALLS = int(os.environ.get("PENSTOCK_CANCELS", "1000"))
AT_ONCE = 200
# A machine with much else to do must not make an abort look lost.
SPEC = "sglang://127.0.0.1:{port}?capacity=160&close_s=60&first_token_s=120&gap_s=120"


class Caller:
    """Makes calls one after the other, and cancels them in every way and at every moment."""

    def __init__(self, client: AsyncClient, seen: Counter[str]) -> None:
        self._client = client
        self._seen = seen

    async def call(self, number: int) -> None:
        """Make one call; each tenth runs to its end."""
        whole = number % 10 == 9
        how = "whole" if whole else ("at once", "first", "waiting", "by request")[number % 4]
        given = {"prompt": f"p{number}", "max_tokens": 2 if whole else 100}
        if number % 3:
            command, given = "predict", given
        else:
            asked = {"request_id": "any", "trace_id": "any", "model": "m", "stream": True, **given}
            command, given = "generate", {"request": asked}
        async with self._client.stream(command, given) as stream:
            try:
                await self._read(stream, how, f"p{number}#")
            except CallCancelled:
                self._seen["told of its cancel"] += 1
        self._seen[how] += 1

    async def _read(self, stream: object, how: str, own: str) -> None:
        assert hasattr(stream, "__aiter__")
        if how == "at once":
            return
        tokens = 0
        async for item in stream:
            chunk = item.get("chunk", "")
            for piece in chunk.split():
                assert piece == f"{own}{tokens}", f"{piece!r} is not {own}{tokens}"
                tokens += 1
            if how == "by request" and tokens == 1:
                await stream.cancel()  # type: ignore[attr-defined]
            elif (how, tokens) in (("first", 1), ("waiting", 2)):
                return
        assert how in ("whole", "by request"), how
        assert how == "by request" or tokens == 2


async def test_thousands_of_cancels_leave_no_work_and_hear_nobody_else() -> None:
    server, seen = SGLangServer(), Counter[str]()
    # Two tokens each, so that no answer comes to its end by itself before its abort is there.
    server.gate.hold(after=2)
    async with server.running():
        app = build_app(None, SPEC.format(port=server.port), ServerSettings())
        async with app, AsyncClient(app) as client:
            await _many(Caller(client, seen))
            await until(lambda: not server.live)
            await until(lambda: server.open_connections <= 160 * 2)
        cancelled = [
            work for work in server.all if work.finish is not None and work.finish["type"] == "abort"
        ]
        assert seen["whole"] == CALLS // 10
        assert sum(seen[how] for how in ("at once", "first", "waiting", "by request")) == CALLS - CALLS // 10
        assert server.useless == []
        assert len(server.aborts) == len(set(server.aborts)) == len(cancelled)
        assert set(server.aborts) == {work.rid for work in cancelled}
        await until(lambda: server.open_connections == 0)


async def _many(caller: Caller) -> None:
    numbers = iter(range(CALLS))

    async def work() -> None:
        for number in numbers:
            await caller.call(number)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(work)
