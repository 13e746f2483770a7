"""WebSocket handshakes that come to nothing are answered in our own form."""

from __future__ import annotations

import pytest

from behaviour.raw_http import Connection
from server.conftest import Served
from server.edge import SMUGGLED, is_refusal

pytestmark = pytest.mark.anyio

GET = b"GET /v2/ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
KEY = b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
VERSION = b"sec-websocket-version: 13\r\n"
BAD = {
    "no key": GET + VERSION,
    "a short key": GET + VERSION + b"sec-websocket-key: AAAA\r\n",
    "two keys": GET + VERSION + KEY + KEY,
    "no version": GET + KEY,
    "another version": GET + KEY + b"sec-websocket-version: 12\r\n",
    "another method": GET.replace(b"GET", b"POST") + KEY + VERSION,
    **{
        f"no ASCII in {name.decode()}": GET + KEY + VERSION + name + b": \x80 AAAA\r\n"
        for name in (b"sec-websocket-key", b"sec-websocket-protocol", b"sec-websocket-extensions")
    },
    "a key that is no ASCII": GET + VERSION + b"sec-websocket-key:\x80 AAAAAAAAAA\r\n",
}


@pytest.mark.parametrize("head", BAD.values(), ids=BAD)
async def test_a_bad_handshake_is_refused(served: Served, head: bytes) -> None:
    connection = await Connection.open(served.address)
    connection.send(head + b"\r\n")
    is_refusal(await connection.reply(), 400, "invalid_argument")
    connection.send(SMUGGLED)
    assert await connection.ended() == b""
    await connection.aclose()


async def test_there_is_no_websocket_elsewhere(served: Served) -> None:
    connection = await Connection.open(served.address)
    connection.send(GET.replace(b"/v2/ws", b"/elsewhere") + KEY + VERSION + b"\r\n")
    is_refusal(await connection.reply(), 403, "permission_denied")
    assert await connection.ended() == b""
    await connection.aclose()
