"""A hub with a clock to move."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.fakes import World, turns
from penstock.calls.limits import CallLimits
from penstock.gateway.hub import Hub
from penstock.gateway.runner import Parting
from penstock.gateway.settings import GatewaySettings
from penstock.testing import FakeClock


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A hub with the usual settings."""
    clock = FakeClock()
    hub = Hub(settings=GatewaySettings(), limits=CallLimits(cancel_grace_s=2.0), clock=clock)
    async with hub:
        yield World(hub, clock)
        for runner in hub.runners:
            runner.lose("the test is over", Parting.LEFT)
        await turns()
        assert not hub._working
        assert not any(admission.running or admission.waiting for admission in hub._admissions.values())
        assert not hub.runners._waiters
