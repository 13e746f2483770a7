"""Waiting for a call, without reading it."""

from __future__ import annotations

import asyncio

from penstock.calls.live import Live


async def wait_ended(live: Live) -> None:
    """Return once ``live`` has its terminal frame."""
    if live.ending is None:
        ended = asyncio.Event()
        live.on_end(lambda _: ended.set())
        await ended.wait()


async def wait_stopped(live: Live, *, however_long: bool = False) -> None:
    """Return once nothing of ``live`` runs any more.

    Args:
        however_long: Also wait for one that is found not to stop (``live.stuck``).
    """
    while not live.stopped and (however_long or not live.stuck):
        told = asyncio.Event()
        live.on_stop(told.set)
        await told.wait()
