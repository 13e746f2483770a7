"""The system clock tells the machine's time and uses the loop's timers."""

from __future__ import annotations

import time

import anyio
import pytest

from penstock.calls.clock import Clock, SystemClock

pytestmark = pytest.mark.anyio


async def test_it_tells_both_times() -> None:
    clock: Clock = SystemClock()
    assert abs(clock.wall() - time.time()) < 5
    first = clock.monotonic()
    assert clock.monotonic() >= first


async def test_timers_run_on_the_loop_unless_cancelled() -> None:
    clock, fired = SystemClock(), anyio.Event()
    clock.call_later(0, pytest.fail).cancel()
    clock.call_later(0.001, fired.set)
    with anyio.fail_after(5):
        await fired.wait()
