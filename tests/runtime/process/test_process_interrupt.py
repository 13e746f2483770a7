"""A cancel interrupts code that blocks in processes of its own and in workers, `initialize` too."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from penstock.protocol.messages import CancelReason
from penstock.testing.journal import Journal

pytestmark = pytest.mark.anyio

PROJECT = """
from penstock import CallInterrupted, Runtime, current_call
from penstock.testing.relay import RelayedJournal

rt = Runtime("manifest.yml")
journal = RelayedJournal()

def note(event):
    with current_call().shield():
        journal.record(event)

def compute():
    try:
        note("started")  # it may come at the end of the shield in there
        while True:
            pass
    except CallInterrupted:
        note("interrupted")
        raise

rt.command("compute", interrupt=True)(compute)

@rt.streaming_command("generate", interrupt=True)
def generate():
    yield 1
    yield compute()

@rt.command("initialize", interrupt=True)
def initialize(heavy: bool = False):
    if heavy:
        compute()
    return {"size": 1}

@rt.command("predict")
async def predict(size=None):
    return size
"""


async def interrupted(app: Any, journal: Journal, command: str, **given: Any) -> None:
    call = await app.open(command, **given)
    with anyio.fail_after(20):
        await journal.wait("started")
    pids = app.pids(command)
    call.cancel(CancelReason.CALLER)
    last = (await app.frames(call))[-1]
    assert (last.status, last.reason) == ("cancelled", "caller")
    with anyio.fail_after(20):
        await journal.wait("interrupted", call.request_id)
    await app.settled()
    assert journal.count("interrupted") == 1
    assert app.pids(command) == pids  # it stopped by itself: nothing was killed


@pytest.mark.parametrize("command", ["compute", "generate"])
@pytest.mark.parametrize("workers", [0, 2])
async def test_code_elsewhere_is_interrupted(
    isolate: Any, journal: Journal, command: str, workers: int
) -> None:
    own = () if workers else ("compute", "generate")
    async with isolate(*own, code=PROJECT, manifest=f"workers: {workers}", grace_s=60) as app:
        await interrupted(app, journal, command)


async def test_an_initialisation_in_workers_is_interrupted_in_all(isolate: Any, journal: Journal) -> None:
    async with isolate(code=PROJECT, manifest="workers: 2", grace_s=60) as app:
        call = await app.open("initialize", heavy=True)
        with anyio.fail_after(20):
            await journal.wait("started", times=2)
        call.cancel(CancelReason.CALLER)
        assert (await app.frames(call))[-1].status == "cancelled"
        with anyio.fail_after(20):
            await journal.wait("interrupted", times=2)
        await app.settled()
        assert await app.answer("predict") == 1
