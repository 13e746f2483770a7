"""A runner of the toy project that has dialled a server, and is at rest when it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from behaviour.checks import at_rest
from penstock.calls.limits import CallLimits
from penstock.runner.clarifai.address import KEEPALIVE_S, read_address
from penstock.runner.clarifai.identity import Credentials, Identity
from penstock.runner.clarifai.runner import ClarifaiRunner
from penstock.runtime.app import App
from runner.clarifai.fake_server import FakeServer
from runner.clarifai.toy import Seen, toy

IDENTITY = Identity("u1", "cc1", "np1", "r1", "f92abb7a49d84272a24322a884f2c4ae")
TOKEN = "the-token"


@asynccontextmanager
async def running(
    server: FakeServer,
    seen: Seen | None = None,
    *,
    app: App | None = None,
    threads: int = 1,
    url: str = "",
    keepalive_s: float = KEEPALIVE_S,
    **more: Any,
) -> AsyncIterator[ClarifaiRunner]:
    """A runner that dials ``server``, or ``url``; its app has nothing left at the end."""
    app = app or App(toy(seen or Seen()), limits=CallLimits(cancel_grace_s=1.0, drain_s=5.0))
    address = read_address(url or server.url, None, keepalive_s=keepalive_s)
    runner = ClarifaiRunner(app, address, IDENTITY, Credentials(TOKEN), threads=threads, **more)
    async with runner:
        yield runner
    await at_rest(app)
    assert runner.items == 0
