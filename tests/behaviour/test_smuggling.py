"""Requests within requests: what one server takes for a body, and another for a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import anyio.lowlevel
import pytest

from behaviour.promises import promise
from behaviour.proxy import nginx, through
from behaviour.raw_http import Connection, CutShort, Reply
from behaviour.seam import Watched
from behaviour.served import hosted
from penstock import Runtime
from penstock.runtime.app import App

pytestmark = pytest.mark.anyio


class Served(NamedTuple):
    """A server."""

    dispatcher: Watched
    names: list[str]  # that its command was called with
    connect: Callable[[], Awaitable[Connection]]
    behind: bool  # a proxy


def _request(name: str, more: bytes = b"", path: str = "/v2/execute") -> bytes:
    body = b'{"command": "call", "input": {"name": "%b"}}' % name.encode()
    return (
        b"POST %b HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n%b\r\n%b" % (path.encode(), len(body), more, body)
    )


HIDDEN = _request("hidden")
POST = b"POST /v2/execute HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
SIZED = b"content-length: %d\r\n" % (len(HIDDEN) + 5)
CHUNKED = b"transfer-encoding: chunked\r\n"
ENDED = b"\r\n0\r\n\r\n" + HIDDEN


def _sized(hidden: bytes) -> bytes:
    return b"content-length: %d\r\n\r\n%b" % (len(hidden), hidden)


# Each hides a request in what is, for one of two servers, the body of another.
PROBES = {
    "length, then chunked": POST + SIZED + CHUNKED + ENDED,
    "chunked, then length": POST + CHUNKED + SIZED + ENDED,
    "an unknown coding": POST + SIZED + b"transfer-encoding: xchunked\r\n" + ENDED,
    "a space before the colon": POST + SIZED + b"transfer-encoding : chunked\r\n" + ENDED,
    "a tab before the coding": POST + SIZED + b"transfer-encoding:\tchunked\r\n" + ENDED,
    "a control before the coding": POST + SIZED + b"transfer-encoding: \x0bchunked\r\n" + ENDED,
    "a folded coding": POST + SIZED + b"transfer-encoding:\r\n chunked\r\n" + ENDED,
    "a coding behind a bare LF": POST + SIZED + b"x: y\n" + CHUNKED + ENDED,
    "a coding behind a bare CR": POST + SIZED + b"x: y\r" + CHUNKED + ENDED,
    "two codings": POST + CHUNKED + b"transfer-encoding: identity\r\n" + SIZED + ENDED,
    "two lengths": POST + b"content-length: 0\r\n" + _sized(HIDDEN),
    "two lengths, turned": POST + SIZED + b"content-length: 0\r\n" + ENDED,
    "a length with a sign": POST + b"content-length: +0\r\n\r\n" + HIDDEN,
    "a length with a letter": POST + b"content-length: 0x0\r\n\r\n" + HIDDEN,
    "a chunk with a sign": POST + CHUNKED + b"\r\n-0\r\n\r\n" + HIDDEN,
    "a chunk past 64 bits": POST + CHUNKED + b"\r\n10000000000000000\r\n\r\n" + HIDDEN,
    "a chunk with a bare LF": POST + CHUNKED + b"\r\n1;a\nx" + ENDED,
    "a chunk that is too long": POST + CHUNKED + b"\r\n1\r\nxyz" + ENDED,
    "a length among trailers": POST + CHUNKED + b"\r\n0\r\n" + _sized(HIDDEN),
    "chunked in HTTP/1.0": POST.replace(b"/1.1", b"/1.0") + CHUNKED + ENDED,
    "HTTP/0.9": b"GET /health\r\n\r\n" + HIDDEN,
    "an upgrade with a body": POST.replace(b" /v2", b" /upgrading/v2")
    + b"connection: upgrade\r\nupgrade: x\r\n"
    + _sized(HIDDEN),
    "an upgrade and chunks": POST.replace(b" /v2", b" /upgrading/v2")
    + b"connection: upgrade\r\nupgrade: x\r\n"
    + CHUNKED
    + ENDED,
    "a length for a GET": b"GET /health HTTP/1.1\r\nhost: test\r\n" + _sized(HIDDEN),
}


@pytest.fixture(params=["directly", "behind nginx"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    rt, names = Runtime(), []

    @rt.command("call")
    async def call(name: str):
        names.append(name)
        return name

    dispatcher = Watched(App(rt))
    bounds: dict[str, Any] = {"header_s": 0.2, "body_idle_s": 0.2, "keep_alive_s": 1}
    async with hosted(dispatcher, **bounds) as (_, address):
        if request.param == "directly":
            yield Served(dispatcher, names, lambda: Connection.open(address), behind=False)
        else:
            async with nginx(address) as path:
                yield Served(dispatcher, names, lambda: through(path), behind=True)


async def _replies(connection: Connection) -> list[Reply]:
    """Return all replies until the server closes."""
    replies = []
    while True:
        try:
            replies.append(await connection.reply())
        except CutShort:
            await connection.aclose()
            return replies


@promise("P28")
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
async def test_no_request_is_hidden_in_another(served: Served, probe: bytes, parts: int) -> None:
    dispatcher, names, connect, behind = served
    connection = await connect()
    head = probe.index(b"\r\n\r\n") + 4
    connection.send(probe[:head] if parts == 2 else probe)
    if parts == 2:  # as proxies do: the body has a packet of its own
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        connection.send(probe[head:])
    replies = await _replies(connection)
    # nginx may read some of them as two requests; it then has an answer for each.
    read_as_two = [reply for reply in replies if b'"hidden"' in reply.body] if behind else []
    assert len(names) == len(dispatcher.calls) == len(read_as_two)
    victim = await connect()
    victim.send(_request("victim", b"connection: close\r\n"))
    (reply,) = await _replies(victim)
    assert reply.status == 200
    assert b'"victim"' in reply.body
    assert names[-1] == "victim"


@promise("P28")
async def test_requests_that_are_sent_ahead_are_called_once_each(
    served: Served,
) -> None:
    _, names, connect, _ = served
    connection = await connect()
    connection.send(b"".join(_request(f"n{n}") for n in range(50)))
    for n in range(50):
        assert b'"n%d"' % n in (await connection.reply()).body
    assert names == [f"n{n}" for n in range(50)]
    await connection.aclose()
