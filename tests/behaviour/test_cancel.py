"""Cancelling: who wins, who is told, who is not disturbed."""

from __future__ import annotations

import asyncio

import pytest
from behaviour.served import Connect
from behaviour.promises import promise

from penstock import Runtime

pytestmark = pytest.mark.anyio


@promise("P7")
async def test_cancel_ends_a_running_call(connect: Connect) -> None:
    rt = Runtime()

    @rt.streaming_command("tick")
    async def tick():
        yield {"tick": 0}
        await asyncio.Event().wait()

    async with connect(rt) as way:
        call = await way.open("tick")
        await call.until("streaming")
        assert await call.cancel() == "cancelled"
        frame = await call.last()
        assert (frame["status"], frame["reason"]) == ("cancelled", "caller")
