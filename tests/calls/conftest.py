"""Live calls without an executor: a clock to move, and a log to fill by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import Start
from penstock.testing import FakeClock

MakeLive = Callable[..., Live]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_live(clock: FakeClock) -> MakeLive:
    """Return a factory: keywords that ``CallLimits`` knows are limits, the rest belongs to ``Start``."""
    numbers = iter(range(1_000_000))

    def make(*, key: str = "", **settings: Any) -> Live:
        known = {name: settings.pop(name) for name in tuple(settings) if hasattr(CallLimits, name)}
        start = msgspec.structs.replace(Start(command="predict"), **settings)
        request_id = f"{next(numbers):032x}"
        return Live(start, request_id, Caller(key=key), clock=clock, limits=CallLimits(**known))

    return make
