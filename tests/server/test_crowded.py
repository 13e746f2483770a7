"""How many connections a server takes, and what those beyond are told."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from behaviour.checks import until
from behaviour.raw_http import Connection, CutShort, Reply
from penstock.server.descriptors import MOST_CONNECTIONS, most_connections, raise_descriptor_limit
from penstock.server.http_protocol import PLACES_FOR_PROBES
from server.edge import HEADS, Edge, edge, is_refusal

pytestmark = pytest.mark.anyio

ASKED = HEADS["get"] + b"\r\n"


@asynccontextmanager
async def idle(served: Edge, count: int) -> AsyncIterator[list[Connection]]:
    """Have connections that say nothing, and that the server has taken."""
    opened = [await Connection.open(served.address) for _ in range(count)]
    try:
        await until(lambda: len(served.state.connections) >= count, lambda: len(served.state.connections))
        yield opened
    finally:
        for connection in opened:
            await connection.aclose()


async def ask(served: Edge, data: bytes = ASKED) -> Reply:
    """Ask on a connection of its own."""
    reply, connection = await served.probe(data)
    await connection.aclose()
    return reply


async def test_the_last_connection_that_fits_is_served() -> None:
    async with edge(most_connections=3) as served, idle(served, 2):
        reply = await ask(served)
        assert (reply.status, reply.body) == (200, b"/ 0")


async def test_one_more_is_told_to_come_again_and_those_before_are_served() -> None:
    async with edge(most_connections=3) as served, idle(served, 3) as (first, *_):
        reply = await ask(served)
        is_refusal(reply, 503, "unavailable")
        assert reply.headers["retry-after"] == "1"
        first.send(ASKED)
        assert (await first.reply()).status == 200
        assert served.begun == ["/"]


async def test_once_one_has_left_there_is_room() -> None:
    async with edge(most_connections=1) as served:
        async with idle(served, 1):
            pass
        await until(lambda: not served.state.connections, lambda: served.state.connections)
        assert (await ask(served)).status == 200


@pytest.mark.parametrize("target", [b"/livez", b"/readyz?verbose", b"/startupz", b"/health"])
async def test_probes_are_answered_all_the_same(target: bytes) -> None:
    async with edge(most_connections=1) as served, idle(served, 1):
        reply = await ask(served, ASKED.replace(b" / ", b" %b " % target))
        assert reply.status == 200


async def test_beyond_the_places_of_probes_nobody_is_taken() -> None:
    async with edge(most_connections=1) as served, idle(served, 1 + PLACES_FOR_PROBES):
        late = await Connection.open(served.address)
        late.send(ASKED)
        with pytest.raises(CutShort):
            await late.reply()
        await late.aclose()
        assert served.begun == []


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(hard, 512)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        raised = raise_descriptor_limit()
        assert raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("asked", "descriptors", "most"),
    [
        (None, None, MOST_CONNECTIONS),
        (None, 65_536, MOST_CONNECTIONS),
        (None, 1_000, 800),
        (None, 1, 1),
        (20_000, 1_000, 20_000),
    ],
)
def test_as_many_connections_as_asked_for_or_as_fit(
    asked: int | None, descriptors: int | None, most: int
) -> None:
    assert most_connections(asked, descriptors) == most
