"""The door of a gateway on a real socket: hellos of all kinds, and keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from behaviour.checks import until
from behaviour.keyring import ANNA, ROOT, holder, write_keys
from behaviour.raw_http import Address, Connection
from behaviour.seam import Switch, Watched
from behaviour.served import hosted
from penstock import Runtime
from penstock.compose import build_gateway
from penstock.errors import ErrorCode
from penstock.gateway.hub import Hub
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.keys import Scope
from penstock.protocol.reliable import ReliableSession
from penstock.protocol.runners import (
    MAX_HELLO,
    Offer,
    Refusal,
    RunnerHello,
    Welcome,
    encode_hello,
    read_reply,
)
from penstock.protocol.session import Ping, Pong
from penstock.runner.dialling import target_of
from penstock.runner.runner import Runner
from penstock.runtime.app import App
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio

RUNNER = holder("gpu", Scope.RUNNER)
HELLO = RunnerHello(name="one", offers=[Offer(name="predict", streaming=True)])


@asynccontextmanager
async def gateway(keys: Path | None = None, **settings: float) -> AsyncIterator[tuple[Hub, Address]]:
    """A gateway; its server takes keys if there are some."""
    switch = Switch()
    hub = switch.hub = Hub(settings=GatewaySettings(**settings))
    switch.inner = Watched(hub)
    more: dict[str, Any] = {} if keys is None else {"auth_keys": keys}
    async with hosted(switch, **more) as (_, address), hub:
        yield hub, address


def dial(address: Address, **more: Any) -> connect:
    return connect(f"ws://{address[0]}:{address[1]}/v2/runners", compression=None, max_size=None, **more)


async def answer(socket: ClientConnection) -> Welcome | Refusal:
    with anyio.fail_after(5):
        return read_reply(await socket.recv(decode=False))


async def closed(socket: ClientConnection) -> int:
    """Return the code with which the gateway closes."""
    with anyio.fail_after(5), suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code or 0


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (b"", ErrorCode.INVALID_ARGUMENT),
        (b"garbage", ErrorCode.INVALID_ARGUMENT),
        (encode_hello(HELLO)[:-3], ErrorCode.INVALID_ARGUMENT),
        ("a text", ErrorCode.INVALID_ARGUMENT),
        (b"\xc1" * (MAX_HELLO + 1), ErrorCode.INVALID_ARGUMENT),
        (b"\x91" * 100_000, ErrorCode.INVALID_ARGUMENT),
        (msgspec.msgpack.encode({"type": "runnerhello", "version": 9}), ErrorCode.FAILED_PRECONDITION),
    ],
)
async def test_what_is_no_hello_is_refused_in_words_and_others_do_not_notice(
    hello: bytes | str, code: ErrorCode
) -> None:
    async with gateway() as (hub, address), dial(address) as good:
        await good.send(encode_hello(HELLO))
        assert isinstance(await answer(good), Welcome)
        async with dial(address) as bad:
            await bad.send(hello)
            refusal = await answer(bad)
            assert isinstance(refusal, Refusal)
            assert refusal.code is code
            assert await closed(bad) in (1002, 1008, 1009)
        assert [runner.name for runner in hub.runners] == ["one"]
        assert hub.runners.find("one").connected


async def test_a_runner_that_says_nothing_is_refused_in_time() -> None:
    async with gateway(hello_s=0.05) as (_, address), dial(address) as silent:
        refusal = await answer(silent)
        assert isinstance(refusal, Refusal)
        assert refusal.code is ErrorCode.REQUEST_TIMEOUT


async def test_a_runner_that_leaves_without_a_word_leaves_nothing() -> None:
    async with gateway() as (hub, address):
        for _ in range(3):
            async with dial(address):
                pass
        assert len(hub.runners) == 0


async def test_a_message_larger_than_a_server_takes_closes_the_connection_only() -> None:
    async with gateway() as (hub, address), dial(address) as large:
        await large.send(encode_hello(HELLO))
        welcome = await answer(large)
        assert isinstance(welcome, Welcome)
        await large.send(ReliableSession().parcel())
        await until(lambda: hub.runners.find("one").takes, lambda: "not yet")
        with suppress(ConnectionClosed):
            await large.send(b"x" * (welcome.max_message + 1024 * 1024))
        assert await closed(large) == 1009
        await until(lambda: hub.runners.find("one").state == "away", lambda: "still there")


async def test_texts_and_garbage_behind_a_hello_break_the_connection() -> None:
    async with gateway() as (hub, address):
        for number, message in enumerate(("a text", b"", b"garbage", msgspec.msgpack.encode([2, 0, []]))):
            hello = RunnerHello(name=f"runner-{number}", offers=[Offer(name="predict")])
            async with dial(address) as bad:
                await bad.send(encode_hello(hello))
                await answer(bad)
                await bad.send(message)
                assert await closed(bad) == 1002
        await until(lambda: not any(runner.connected for runner in hub.runners), lambda: len(hub.runners))


async def test_a_session_is_gone_on_with_by_whoever_knows_it() -> None:
    async with gateway() as (hub, address):
        async with dial(address) as first:
            await first.send(encode_hello(HELLO))
            welcome = await answer(first)
            assert isinstance(welcome, Welcome)
            await first.send(ReliableSession().parcel())
            await until(lambda: hub.runners.find("one").takes, lambda: "not yet")
        again = msgspec.structs.replace(HELLO, session=welcome.session)
        async with dial(address) as second:
            await second.send(encode_hello(again))
            resumed = await answer(second)
            assert isinstance(resumed, Welcome)
            assert resumed.session == welcome.session
            session = ReliableSession()
            with anyio.fail_after(5):
                pings = session.feed(await second.recv(decode=False))
            assert isinstance(pings[0], Ping)
            session.push(Pong(number=pings[0].number))
            await second.send(session.parcel())
            assert len(hub.runners) == 1


async def test_what_it_cannot_have_received_is_refused() -> None:
    async with gateway() as (hub, address):
        async with dial(address) as first:
            await first.send(encode_hello(HELLO))
            welcome = await answer(first)
            assert isinstance(welcome, Welcome)
            await first.send(ReliableSession().parcel())
            await until(lambda: hub.runners.find("one").takes, lambda: "not yet")
        async with dial(address) as second:
            await second.send(
                encode_hello(msgspec.structs.replace(HELLO, session=welcome.session, received=99))
            )
            await answer(second)
            assert await closed(second) in (1002, 1011)


# -- keys ------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    limited = msgspec.structs.replace(RUNNER.key, commands=frozenset({"predict"}))
    return write_keys(tmp_path / "keys.txt", ANNA, ROOT, RUNNER._replace(key=limited))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer penstock_wrong"}, 401),
        ({"authorization": "Basic abc"}, 401),
        (ANNA.headers, 403),
        (ROOT.headers, 403),
        ({**RUNNER.headers, "origin": "https://evil.example"}, 403),
    ],
)
async def test_without_the_key_of_a_runner_nobody_gets_a_word_in(
    keys: Path, headers: dict[str, str], status: int
) -> None:
    async with gateway(keys) as (hub, address):
        with pytest.raises(InvalidStatus) as refused:
            async with dial(address, additional_headers=headers):
                pass
        assert refused.value.response.status_code == status
        assert len(hub.runners) == 0


async def test_a_key_offers_what_it_may_and_no_more(keys: Path) -> None:
    async with gateway(keys) as (_, address):
        async with dial(address, additional_headers=RUNNER.headers) as good:
            await good.send(encode_hello(HELLO))
            assert isinstance(await answer(good), Welcome)
        more = RunnerHello(name="two", offers=[*HELLO.offers, Offer(name="other")])
        async with dial(address, additional_headers=RUNNER.headers) as bad:
            await bad.send(encode_hello(more))
            refusal = await answer(bad)
            assert isinstance(refusal, Refusal)
            assert refusal.code is ErrorCode.PERMISSION_DENIED


async def test_the_key_of_a_runner_calls_nothing(keys: Path) -> None:
    async with gateway(keys) as (_, address):
        for path in ("/v2/runners", "/v2/commands", "/tasks"):
            connection = await Connection.open(address)
            connection.request("GET", path, headers=RUNNER.headers)
            assert (await connection.reply()).status == 403
            await connection.aclose()


async def test_runners_are_shown_to_admins_and_ruled_by_them(keys: Path) -> None:
    settings = ServerSettings()
    hub, extension = build_gateway("gateway", settings)
    assert hub.manifest.name == "gateway"
    assert {route.path for route in extension.routes} == {
        "/v2/runners",
        "/v2/runners/{id}",
        "/v2/runners/{id}/drain",
        "/v2/runners/{id}/weight",
    }


# -- a real runner ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "127.0.0.1:8000", "ws://", "ws://a:b@host", "ws://host?token=x", ""]
)
def test_a_url_is_checked_before_it_is_dialled(url: str) -> None:
    with pytest.raises(ValueError, match="is no gateway's URL"):
        target_of(url, None)


def test_a_url_without_a_path_means_the_usual_one(caplog: pytest.LogCaptureFixture) -> None:
    assert target_of("ws://127.0.0.1:8000", "secret").url == "ws://127.0.0.1:8000/v2/runners"
    assert target_of("wss://host/mine/", "secret").url == "wss://host/mine"
    assert not caplog.records
    target_of("ws://gateway.example", "secret")
    assert "without encryption" in caplog.text
    assert "secret" not in caplog.text


async def test_a_token_goes_nowhere_else() -> None:
    """A gateway, or who sits in its place, sends the runner elsewhere: it does not go."""
    visited: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append(await reader.readuntil(b"\r\n\r\n"))
        place = f"ws://127.0.0.1:{writer.get_extra_info('sockname')[1]}/elsewhere"
        writer.write(f"HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Runner(App(Runtime()), [f"ws://127.0.0.1:{port}"], "one", token="secret", chance=lambda: 1.0):
        await until(lambda: len(visited) > 0, lambda: visited)
        await asyncio.sleep(0.05)
    server.close()
    await server.wait_closed()
    assert [request.split(b" ")[1] for request in visited] == [b"/v2/runners"] * len(visited)


async def test_a_runner_that_is_refused_says_why_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    runtime = Runtime()

    @runtime.command("predict")
    async def predict() -> int:
        return 1

    async with gateway() as (hub, address), dial(address) as first:
        await first.send(encode_hello(HELLO))
        await answer(first)
        url = f"ws://{address[0]}:{address[1]}"
        async with Runner(App(runtime), [url], "one", chance=lambda: 0.0):
            await until(lambda: "is connected already" in caplog.text, lambda: caplog.text)
            await first.close()
            await until(
                lambda: len(hub.runners) == 1 and hub.runners.find("one").takes, lambda: len(hub.runners)
            )


async def test_nobody_is_called_where_no_gateway_is(caplog: pytest.LogCaptureFixture) -> None:
    async with Runner(App(Runtime()), ["ws://127.0.0.1:9"], "one", chance=lambda: 0.0) as runner:
        await until(lambda: "no gateway answers at" in caplog.text, lambda: caplog.text)
        assert not runner.lines[0].connected
        with anyio.fail_after(5):
            await runner.drain()
