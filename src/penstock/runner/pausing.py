"""Waiting between two attempts."""

from __future__ import annotations

import asyncio

from penstock.calls.clock import Clock
from penstock.calls.tasks import TaskOwner


async def pause(wait_s: float, over: asyncio.Event, clock: Clock, tasks: TaskOwner) -> None:
    """Return after ``wait_s`` seconds, or once ``over`` is set.

    Args:
        tasks: Owns what waits meanwhile.
    """
    passed = asyncio.Event()
    timer = clock.call_later(wait_s, passed.set)
    waits = [tasks.start(event.wait(), name="pause") for event in (passed, over)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        for wait in waits:
            wait.cancel()
