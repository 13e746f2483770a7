"""Any bytes on a connection: each is answered in our own form, or by closing, and never waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from behaviour.promises import promise
from behaviour.raw_http import Address, Connection, CutShort, Reply
from behaviour.served import hosted
from penstock import Runtime
from penstock.errors import FAULTS, ErrorCode
from penstock.runtime.app import App

BODY = b'{"command": "add", "input": {"a": 1, "b": [2.5, "x", null, true]}, "task_id": "t", "timeout": 3}'
SIZED = b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(BODY), BODY)
REQUESTS = [
    b"POST /v2/execute HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n" + SIZED,
    b"POST /v2/execute HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n" + CHUNKED,
    b"GET /tasks/t/events?after=-1 HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n",
    b"GET /v2/ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x81\x80\0\0\0\0",
]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b":",
    b"\0",
    b"\xff",
    b"chunked",
    b"0",
    b"9" * 30,
    b"[" * 99,
    b'"',
    b"%00",
]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A request, or several, with something taken out, put in or put elsewhere."""
    data = b"".join(draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 12))
        data = data[:at] + draw(st.sampled_from(TOKENS) | st.binary(max_size=6)) + data[at + gone :]
    return data


def _runtime() -> Runtime:
    rt = Runtime()

    @rt.command("add")
    async def add(a: int, b: list[object]):
        return a

    return rt


def _is_ours(reply: Reply) -> None:
    kind = reply.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return
    frame = json.loads(reply.body.splitlines()[-1])
    if frame.get("status") == "error":
        assert reply.status == FAULTS[ErrorCode(frame["code"])].http
        assert frame["code"] != "internal"
    else:
        assert reply.status == 200


async def _send(address: Address, data: bytes) -> None:
    connection = await Connection.open(address)
    connection.send(data)
    # What comes last is complete, and closes, unless the bytes before it have done so.
    connection.send(b"GET /health HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
    try:
        while True:
            head = await connection.head("GET")
            if head.status == 101:
                break
            _is_ours(Reply(*head, await connection.body()))
    except CutShort:
        pass
    finally:
        await connection.aclose()
    alive = await Connection.open(address)
    alive.request("GET", "/health")
    assert (await alive.reply()).status == 200
    await alive.aclose()


@pytest.fixture(scope="module")
def send() -> Iterator[Callable[[bytes], None]]:
    """Send bytes to a server that outlives many examples; hypothesis calls from outside of an event loop."""
    loop = asyncio.new_event_loop()
    server = hosted(App(_runtime()), header_s=0.03, body_idle_s=0.03, keep_alive_s=1)
    _, address = loop.run_until_complete(server.__aenter__())
    yield lambda data: loop.run_until_complete(_send(address, data))
    loop.run_until_complete(server.__aexit__(None, None, None))
    loop.close()


@promise("P25")
@given(data=broken())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_answered_in_our_own_form(send: Callable[[bytes], None], data: bytes) -> None:
    send(data)


@promise("P25")
@pytest.mark.parametrize("wire", REQUESTS)
def test_a_request_that_is_cut_anywhere_is_answered_in_our_own_form(
    send: Callable[[bytes], None], wire: bytes
) -> None:
    for at in range(0, len(wire), 5):
        send(wire[:at])
