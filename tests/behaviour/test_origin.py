"""What a browser says of a page, said by hand; in test_foreign_pages.py a browser says it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from behaviour.promises import promise
from behaviour.raw_http import Address, Connection, Head, Reply
from behaviour.seam import Switch
from behaviour.served import Connect, hosted
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

FRIEND = "https://app.example"
BODY = b'{"command": "one"}'
FOREIGN = {
    "another site": {"origin": "https://evil.example"},
    "another port": {"origin": "http://localhost:1"},
    "a sandbox": {"origin": "null"},
    "another name": {"host": "evil.example"},
    "its own site by another name": {"host": "evil.example", "origin": "http://evil.example"},
    "a friend by another name": {"host": "evil.example", "origin": FRIEND},
    "embedded": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
}


@pytest.fixture(scope="module")
async def server(anyio_backend: object) -> AsyncIterator[tuple[Switch, Address]]:
    switch = Switch()
    async with hosted(switch, allow_origin=f"{FRIEND},https://other.example") as (_, address):
        yield switch, address


def one() -> Runtime:
    rt = Runtime()
    rt.command("one")(lambda: 1)
    return rt


async def ask(
    address: Address, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> Reply:
    connection = await Connection.open(address)
    try:
        connection.request(method, path, body, headers)
        return await connection.reply(method)
    finally:
        await connection.aclose()


async def handshake(address: Address, headers: dict[str, str]) -> Head:
    connection = await Connection.open(address)
    about = {"Host": "test", **{name.title(): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in about.items())
    lines += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = f"Sec-WebSocket-Key: {'A' * 22}=="
    try:
        connection.send(f"GET /v2/ws HTTP/1.1\r\n{lines}{key}\r\n\r\n".encode())
        return await connection.head()
    finally:
        await connection.aclose()


@promise("P33")
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_nothing_is_done_for_a_foreign_page(
    server: tuple[Switch, Address], connect_http: Connect, headers: dict[str, str]
) -> None:
    _, address = server
    async with connect_http(one()) as way:
        for method, path, body in (
            ("POST", "/v2/execute", BODY),
            ("GET", "/livez", None),
            ("GET", "/", None),
            ("GET", "/playground/index.html", None),
            ("GET", "/tasks", None),
            ("GET", "/nowhere", None),
            ("DELETE", "/tasks/x", None),
            ("OPTIONS", "/v2/execute", None),
        ):
            reply = await ask(address, method, path, headers, body)
            assert (reply.status, json.loads(reply.body)["code"]) == (403, "permission_denied")
            assert not [name for name in reply.headers if name.startswith("access-control")]
        preflight = {**headers, "access-control-request-method": "POST"}
        assert (await ask(address, "OPTIONS", "/v2/execute", preflight)).status == 403
        assert (await handshake(address, headers)).status == 403
        assert way.dispatcher.calls == []


@promise("P33")
@pytest.mark.parametrize("path", ["/v2/execute", "/tasks/x", "/nowhere"])
async def test_a_friend_s_preflight_is_answered_and_does_nothing(
    server: tuple[Switch, Address], connect_http: Connect, path: str
) -> None:
    _, address = server
    async with connect_http(one()) as way:
        asked = {
            "origin": FRIEND,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-api-key",
        }
        reply = await ask(address, "OPTIONS", path, asked)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == FRIEND
        assert reply.headers["vary"] == "origin"
        assert {"POST", "DELETE"} <= set(reply.headers["access-control-allow-methods"].split(", "))
        allowed = set(reply.headers["access-control-allow-headers"].split(", "))
        assert {"authorization", "content-type", "last-event-id", "x-api-key", "x-request-timeout"} <= allowed
        assert "idempotency-key" in allowed
        assert "content-length" not in reply.headers
        assert way.dispatcher.calls == []
    without = await ask(address, "OPTIONS", "/v2/execute", {"origin": FRIEND})
    assert without.status == 405  # that is no preflight


@promise("P33")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v2/execute", BODY, 200),
        ("POST", "/v2/execute", b'{"command": "one", "is_stream": true}', 200),
        ("GET", "/nowhere", None, 404),
        ("PUT", "/predict", None, 405),
        ("POST", "/v2/execute", b"{", 400),
    ],
)
async def test_a_friend_s_page_may_read_every_answer(
    server: tuple[Switch, Address],
    connect_http: Connect,
    method: str,
    path: str,
    body: bytes | None,
    status: int,
) -> None:
    _, address = server
    async with connect_http(one()):
        reply = await ask(address, method, path, {"origin": FRIEND}, body)
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == FRIEND
        assert "x-request-id" in reply.headers["access-control-expose-headers"]
        bare = await ask(address, method, path, {}, body)
        assert "access-control-allow-origin" not in bare.headers
        assert (await handshake(address, {"origin": FRIEND})).status == 101
        own = f"http://localhost:{address[1]}"
        assert (await handshake(address, {"origin": own, "host": f"localhost:{address[1]}"})).status == 101
