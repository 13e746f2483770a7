"""A project that is spoken to over WebSockets, on a server with a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from behaviour.seam import Switch
from behaviour.served import hosted
from penstock.calls.limits import CallLimits
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime
from penstock.server.host import Host


@dataclass
class Told:
    """What the commands tell the test."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Served:
    """A project, served."""

    app: App
    host: Host
    address: tuple[str, int]


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def told() -> Told:
    return Told()


def project(told: Told) -> Runtime:
    rt = Runtime(Manifest(name="sockets", default_command="tick"))

    @rt.command("echo")
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}

    @rt.command("size")
    async def size(text: str) -> int:
        return len(text)

    @rt.streaming_command("tick")
    async def tick(n: int = 2) -> AsyncIterator[dict[str, int]]:
        for number in range(n):
            yield {"n": number}

    @rt.streaming_command("upper")
    async def upper(words: AsyncIterator[str]) -> AsyncIterator[str]:
        async for word in words:
            yield word.upper()

    @rt.streaming_command("hang", concurrency=1024)
    async def hang() -> AsyncIterator[str]:
        try:
            yield "first"
            told.started.set()
            await told.go.wait()
            yield "second"
        finally:
            told.stopped.set()

    @rt.streaming_command("flood", concurrency=1024)
    async def flood(items: int = 1_000_000) -> AsyncIterator[str]:
        try:
            for number in range(items):
                yield f"{number:010}" * 100
        finally:
            told.stopped.set()

    @rt.streaming_command("fail")
    async def fail() -> AsyncIterator[int]:
        yield 1
        raise ValueError("a secret")

    return rt


@pytest.fixture
def serve(told: Told) -> Serve:
    """Serve the project: ``async with serve(limits=…, ping_s=…) as served``."""

    @asynccontextmanager
    async def serve(limits: CallLimits | None = None, **settings: Any) -> AsyncIterator[Served]:
        app = App(project(told), limits=limits)
        async with hosted(app, **settings) as (host, address):
            yield Served(app, host, address)

    return serve


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """A file's tests share an event loop, so that they can share a server."""
    return "asyncio"


@pytest.fixture(scope="module")
async def server(anyio_backend: object) -> AsyncIterator[tuple[Switch, Host, tuple[str, int]]]:
    """A server with the settings everybody has, for one app after the other."""
    switch = Switch()
    async with hosted(switch) as (host, address):
        yield switch, host, address


@pytest.fixture
async def served(told: Told, server: tuple[Switch, Host, tuple[str, int]]) -> AsyncIterator[Served]:
    """The project on the shared server."""
    switch, host, address = server
    async with App(project(told)) as app:
        switch.inner = app
        yield Served(app, host, address)
