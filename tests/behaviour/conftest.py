"""The fixtures of the behaviour suite: a server for each file, an app for each test, checks after each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from behaviour.checks import Resources
from behaviour.connect import WAYS, HttpNdjson, Way
from behaviour.raw_http import Address
from behaviour.seam import Switch
from behaviour.served import Connect, hosted


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """A file's tests share an event loop, so that they can share a server."""
    return "asyncio"


@pytest.fixture(scope="module")
async def server(anyio_backend: object) -> AsyncIterator[tuple[Switch, Address]]:
    """A server on a real socket, in the tests' own event loop."""
    switch = Switch()
    async with hosted(switch) as (_, address):
        yield switch, address


@pytest.fixture
async def connect(
    request: pytest.FixtureRequest, server: tuple[Switch, Address], way_in: type[Way]
) -> AsyncIterator[Connect]:
    """Serve an app over each way in, one after the other; see ``Connect``."""
    before = Resources()
    yield Connect(way_in, *server)
    await before.check_level()


@pytest.fixture
async def connect_http(server: tuple[Switch, Address]) -> AsyncIterator[Connect]:
    """As ``connect``, over HTTP only: for what other ways in do not have."""
    before = Resources()
    yield Connect(HttpNdjson, *server)
    await before.check_level()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test over every way in, and one about leaving with every manner of leaving."""
    names = metafunc.fixturenames
    if {"how", "way_in"} <= set(names):
        pairs = [(way, how) for way in WAYS for how in way.departures]
        ids = [f"{way.name}-{how}" for way, how in pairs]
        metafunc.parametrize(("way_in", "how"), pairs, ids=ids)
    elif "way_in" in names and not _says_ways(metafunc):
        metafunc.parametrize("way_in", WAYS, ids=[way.name for way in WAYS])


def _says_ways(metafunc: pytest.Metafunc) -> bool:
    return any("way_in" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known that ties a test to what it proves."""
    config.addinivalue_line("markers", "promise(*ids): the promises a behaviour test proves")
