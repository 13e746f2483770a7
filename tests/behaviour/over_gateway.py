"""Through a gateway: the app is a runner's, which dials it on a real socket; callers ask the gateway."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from behaviour.keyring import RUNNER
from behaviour.over_http import HttpNdjson
from behaviour.raw_http import WAIT_S, Address
from penstock.calls.clock import Clock
from penstock.calls.limits import CallLimits
from penstock.gateway.hub import Hub
from penstock.gateway.settings import GatewaySettings
from penstock.runner.runner import Runner
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest

NO_BEATS_S = 500_000.0  # clocks that tests move would find every runner silent


class Gateway(HttpNdjson):
    """HTTP at a gateway with one runner."""

    name = "gateway"


class Gatewayed:
    """A hub and its one runner, with one life.

    Args:
        app: The runner's.
        address: What the runner dials; behind it is to be ``hub``.
    """

    def __init__(self, app: App, address: Address, limits: CallLimits | None, clock: Clock | None) -> None:
        shown = app.manifest
        manifest = Manifest(name=shown.name, version=shown.version, default_command=shown.default_command)
        settings = GatewaySettings(heartbeat_s=NO_BEATS_S)
        self.hub = Hub(manifest, settings=settings, limits=limits, clock=clock)
        self._runner = Runner(
            app, [f"ws://{address[0]}:{address[1]}"], "runner-1", token=RUNNER.token, clock=clock
        )

    async def start(self) -> None:
        """Start both; returns once they have met."""
        await self.hub.start()
        await self._runner.start()
        with anyio.fail_after(WAIT_S):
            while not any(runner.takes for runner in self.hub.runners):
                await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close both."""
        await self.hub.aclose()
        await self._runner.aclose()
