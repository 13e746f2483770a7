"""Serves an app for a test, and checks what must hold when the test is done with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio

from behaviour.checks import at_rest, check_calls
from behaviour.connect import Way
from behaviour.over_gateway import Gateway, Gatewayed
from behaviour.raw_http import WAIT_S, Address
from behaviour.seam import Switch, Watched
from penstock.calls.clock import Clock
from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import CancelReason
from penstock.protocol.runners import PATH
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.server.asgi import Extension
from penstock.server.host import Host, Hosted
from penstock.server.meta import Exposition
from penstock.server.settings import ServerSettings


@asynccontextmanager
async def hosted(
    dispatcher: Hosted,
    *,
    exposition: Exposition | None = None,
    **settings: object,
) -> AsyncIterator[tuple[Host, Address]]:
    """Serve ``dispatcher`` on a free loopback port."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = {"allow_host": "test", **settings}  # what the tests' own client calls every server
    extension = Extension(hosts={PATH: dispatcher.visit}) if isinstance(dispatcher, Switch) else None
    host = Host(dispatcher, ServerSettings(port=0, **settings), ready.set_result, exposition, extension)
    tasks = TaskOwner()
    serving = tasks.start(host.serve(), name="host")
    with anyio.fail_after(WAIT_S):
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        url = urlsplit(ready.result() if ready.done() else await serving)
    try:
        yield host, (url.hostname, url.port)
    finally:
        host.stop()
        with anyio.fail_after(2 * WAIT_S):
            await serving


class Connect:
    """Gives a test its app, reached through one way in.

    ::

        async with connect(runtime) as way:
            call = await way.open("predict", {"prompt": "A fox"})

    Leaving cancels what still runs, and checks every call and every permit.

    Args:
        way: Which way.
        switch: Stands behind the server.
        address: Of the server.
    """

    def __init__(self, way: type[Way], switch: Switch, address: Address) -> None:
        self.way = way
        self._switch = switch
        self._address = address

    @asynccontextmanager
    async def __call__(
        self, runtime: Runtime, *, limits: CallLimits | None = None, clock: Clock | None = None
    ) -> AsyncIterator[Way]:
        app = App(runtime, limits=limits, clock=clock)
        async with self._serving(app, limits, clock) as dispatcher:
            way = self.way(dispatcher, self._address)
            way.app = app
            try:
                yield way
            finally:
                await way.aclose()
            await _cancel_what_is_left(dispatcher)
            await at_rest(app)
            await check_calls(way)

    @asynccontextmanager
    async def _serving(
        self, app: App, limits: CallLimits | None, clock: Clock | None
    ) -> AsyncIterator[Watched]:
        """Put ``app`` behind the server, or behind a gateway that is."""
        life: App | Gatewayed = app
        dispatcher = Watched(app)
        if self.way is Gateway:
            life = Gatewayed(app, self._address, limits, clock)
            dispatcher = Watched(life.hub)
            self._switch.hub = life.hub
        self._switch.inner = dispatcher
        await life.start()
        try:
            yield dispatcher
            if isinstance(life, Gatewayed):
                await at_rest(life.hub)
        finally:
            # Bounded, as a test that fails may leave code behind that never stops.
            with anyio.fail_after(WAIT_S):
                await life.aclose()


async def _cancel_what_is_left(dispatcher: Watched) -> None:
    for record in dispatcher.tasks(LOCAL):
        await dispatcher.cancel(record.request_id, CancelReason.CALLER, LOCAL)
