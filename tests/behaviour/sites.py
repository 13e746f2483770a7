"""A gateway at the end of a cable, and runners that dial it through that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from behaviour.cable import Cable
from behaviour.checks import check_log
from behaviour.connect import Frame
from behaviour.raw_http import WAIT_S, Address
from behaviour.seam import Switch, Watched
from behaviour.served import hosted
from penstock import Runtime, current_call
from penstock.gateway.hub import Hub
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.dispatch import LOCAL, LiveCall
from penstock.protocol.messages import OnDisconnect, Start
from penstock.runner.runner import Runner
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_parts import CommandSettings

ITEMS = 24


class Project:
    """Counts what runs."""

    def __init__(self, **settings: CommandSettings) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.waits = asyncio.Event()
        self.go = asyncio.Event()
        self.runtime = rt = Runtime(Manifest(name="project", commands=settings))

        @rt.streaming_command("count")
        async def count(items: int = ITEMS, pad: int = 0):
            for i in range(items):
                yield {"i": i, "pad": "x" * pad}
                await asyncio.sleep(0)

        @rt.streaming_command("wait")
        async def wait(first: bool = True):
            self.started.append(current_call().request_id)
            try:
                if first:
                    yield {"i": 0}
                self.waits.set()
                await self.go.wait()
                yield {"i": 1}
            finally:
                self.ended.append(current_call().request_id)


class Site:
    """A gateway, and a cable that leads to it."""

    def __init__(self, switch: Switch, cable: Cable, address: Address, settings: GatewaySettings) -> None:
        self.switch = switch
        self.cable = cable
        self.address = address
        self._settings = settings
        self.hub: Hub

    async def start_hub(self) -> Hub:
        """Start a new gateway in the place of the one there was."""
        self.hub = self.switch.hub = Hub(settings=self._settings)
        self.switch.inner = Watched(self.hub)
        await self.hub.start()
        return self.hub

    async def open(self, command: str, *, more_input: bool = False, **given: object) -> LiveCall:
        """Open a call."""
        start = Start(
            more_input=more_input,
            command=command,
            input=json.dumps(given).encode(),
            is_stream=True,
            on_disconnect=OnDisconnect(None),
        )
        return await self.hub.open(start, LOCAL)

    async def frames(self, live: LiveCall) -> list[Frame]:
        """Return a call's log, checked."""
        lines: list[bytes] = []
        with anyio.fail_after(3 * WAIT_S):
            async with live.reader() as reader:
                async for batch in reader:
                    lines += batch.lines
        check_log(lines)
        return [json.loads(line) for line in lines]

    async def there(self, count: int = 1) -> None:
        """Return once so many runners are connected."""

        def connected() -> int:
            return sum(runner.state == "connected" for runner in self.hub.runners)

        with anyio.fail_after(4 * WAIT_S):
            while connected() != count:
                await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def site(host: str = "127.0.0.1", **settings: float) -> AsyncIterator[Site]:
    """A gateway on a real socket, behind a cable."""
    switch = Switch()
    open_to_others = {} if host == "127.0.0.1" else {"host": host, "insecure_open": True}
    async with hosted(switch, **open_to_others) as (_, address), Cable(address) as cable:
        at = Site(switch, cable, address, GatewaySettings(**settings))
        await at.start_hub()
        try:
            yield at
        finally:
            with anyio.fail_after(2 * WAIT_S):
                await at.hub.aclose()


@asynccontextmanager
async def runner(at: Site, project: Project, name: str = "one") -> AsyncIterator[Runner]:
    """A runner that dials through the cable, and after a loss at once again."""
    there = sum(runner.state == "connected" for runner in at.hub.runners)
    async with Runner(App(project.runtime), [at.cable.url], name, chance=lambda: 0.0) as running:
        await at.there(there + 1)
        yield running


def data(frames: list[Frame]) -> list[int]:
    return [frame["data"]["i"] for frame in frames if frame["status"] == "streaming"]
