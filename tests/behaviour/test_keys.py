"""With keys on: who is let in, and what they see of each other."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from behaviour.connect import Refused, Way
from behaviour.keyring import (
    ANNA,
    BEN,
    EVERYBODY,
    EXPIRED,
    METRICS,
    ROOT,
    RUNNER,
    STRANGER,
    Holder,
    write_keys,
)
from behaviour.promises import promise
from behaviour.raw_http import Address, Connection, Reply
from behaviour.seam import Switch
from behaviour.served import Connect, hosted
from penstock.calls.limits import CallLimits
from penstock.protocol.keys import Key, KeyTable
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime
from penstock.server.asgi import SOCKETS
from penstock.server.host import Host
from penstock.testing import model_zoo
from server.peer import Ended, Peer

pytestmark = pytest.mark.anyio

PROBES = ("/livez", "/readyz", "/startupz", "/health")  # all that is open, by name
PAGE = (
    "/playground/index.html",
    "/playground/page/main.js",
    "/playground/style.css",
    "/docs",
    "/docs/reference.js",
    "/docs/swagger-ui.css",
)  # all alike, and of everybody
BROWSER = {"accept": "text/html,*/*;q=0.8"}  # to which `/` is such a file as well, and to nobody else
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
NOWHERE = (
    "/",
    "/playground/",
    "/playground/nowhere.js",
    "/playground/../tasks",
    "/playground/../../tasks",
    "/playground//../tasks",
    "/docs/",
    "/docs/nowhere.js",
    "/docs/../tasks",
    "/nowhere",
    "/v1/chat/completions",
    "/livez/",
    "//livez",
    "/livez/../tasks",
    "/LIVEZ",
    "/tasks/x/y",
)
ANNA_WITH_LESS = Holder(ANNA.token, msgspec.structs.replace(ANNA.key, scopes=METRICS.key.scopes))
CURSORS = (-1, 0, 1, 99)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keys(tmp_path_factory.mktemp("keys") / "keys.txt", *EVERYBODY)


@pytest.fixture(scope="module")
async def guarded(anyio_backend: object, keys: Path) -> AsyncIterator[tuple[Switch, Address, Host]]:
    switch = Switch()
    metrics = "text/plain", b"counted 1\n"
    async with hosted(switch, auth_keys=keys, exposition=lambda *_: metrics) as (host, address):
        yield switch, address, host


@pytest.fixture(scope="module")
async def server(guarded: tuple[Switch, Address, Host]) -> tuple[Switch, Address]:
    """What `connect` serves with."""
    switch, address, _ = guarded
    return switch, address


def stateful() -> Runtime:
    steps = [{"id": "make", "command": "initialize", "input": {"size": 9}}]
    rt = Runtime(Manifest(name="state", state=["model"], workflows={"make": {"steps": steps}}))

    @rt.command("initialize")
    def initialize(size: int = 1) -> dict[str, int]:
        return {"model": size}

    @rt.command("ask")
    def ask(model: int | None = None) -> int:
        return model or 0

    return rt


async def request(
    address: Address, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Reply:
    connection = await Connection.open(address)
    try:
        connection.request(method, path, body, headers)
        return await connection.reply(method)
    finally:
        await connection.aclose()


async def handshake(address: Address, path: str = "/v2/ws", headers: str = "") -> Reply | None:
    """Return what a handshake is refused with, None if it is not."""
    connection = await Connection.open(address)
    try:
        key = f"sec-websocket-version: 13\r\nsec-websocket-key: {'A' * 22}==\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}"
        connection.send(f"{head}{headers}\r\n".encode())
        reply = await connection.head("HEAD")
        if reply.status == 101:
            return None
        return Reply(*reply, json.dumps({}).encode())
    finally:
        await connection.aclose()


def is_shut(reply: Reply, method: str = "GET") -> None:
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        told = json.loads(reply.body)
        told = told.get("error", told) if "code" not in told else told  # below /v1/ it has OpenAI's shape
        assert told["code"] == "unauthenticated"


# -- P30: every route needs a key ------------------------------------------------------------------------


@promise("P30")
async def test_every_route_and_method_needs_a_key_but_the_probes(
    guarded: tuple[Switch, Address, Host], connect_http: Connect
) -> None:
    _, address, host = guarded
    application = host._application
    paths = [route.path.replace("{id}", "x") for route in application.routes]
    assert {*PROBES, "/metrics", "/openapi.json", "/v2/execute"} <= set(paths)
    async with connect_http(Runtime()):
        for path in (*paths, *SOCKETS, *NOWHERE, *PAGE):
            for method in METHODS:
                reply = await request(address, method, path)
                if path in (*PROBES, *PAGE) and method in ("GET", "HEAD"):
                    assert reply.status == 200, (method, path)
                else:
                    is_shut(reply, method)


@promise("P30")
async def test_the_page_that_asks_for_a_key_is_shown_without_one(
    guarded: tuple[Switch, Address, Host],
) -> None:
    _, address, _ = guarded
    for method in METHODS:
        for key in ({}, STRANGER.headers, EXPIRED.headers):
            reply = await request(address, method, "/", {**BROWSER, **key})
            if method in ("GET", "HEAD"):
                assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
            else:
                is_shut(reply, method)
    for path in ("/tasks", "/v2/commands", "/openapi.json", "/nowhere", "//"):  # it opens nothing else
        is_shut(await request(address, "GET", path, BROWSER))


@promise("P30")
async def test_with_a_key_every_route_is_there(
    guarded: tuple[Switch, Address, Host], connect_http: Connect
) -> None:
    _, address, host = guarded
    async with connect_http(Runtime()):
        for route in host._application.routes:
            for method in route.handlers:
                reply = await request(address, method, route.path.replace("{id}", "x"), ROOT.headers)
                assert reply.status not in (401, 403, 405), (method, route.path)
        assert (await request(address, "GET", "/nowhere", ANNA.headers)).status == 404
        assert (await request(address, "PUT", "/predict", ANNA.headers)).status == 405


@promise("P30")
@pytest.mark.parametrize("path", [*SOCKETS, "/elsewhere"])
async def test_a_websocket_needs_a_key_before_it_is_accepted(
    guarded: tuple[Switch, Address, Host], path: str
) -> None:
    _, address, _ = guarded
    for headers in (
        "",
        f"Authorization: Bearer {STRANGER.token}\r\n",
        "Sec-WebSocket-Protocol: penstock\r\n",
    ):
        reply = await handshake(address, path, headers)
        assert reply is not None
        is_shut(reply, "HEAD")
        assert reply.headers["content-type"] == "application/json"
    refused = await handshake(address, path, f"X-API-Key: {ANNA.token}\r\n")
    assert (refused is None) == (path in SOCKETS)


@promise("P30")
@pytest.mark.parametrize("path", PROBES)
async def test_probes_tell_strangers_only_how_it_is(
    guarded: tuple[Switch, Address, Host], connect_http: Connect, path: str
) -> None:
    _, address, _ = guarded
    async with connect_http(Runtime()):
        for headers in ({}, STRANGER.headers, EXPIRED.headers):
            reply = await request(address, "GET", path, headers)
            assert (reply.status, json.loads(reply.body)) == (200, {"status": "healthy"})
        assert len(json.loads((await request(address, "GET", path, ANNA.headers)).body)) > 1


@promise("P30")
async def test_scopes_open_their_own_doors_only(
    guarded: tuple[Switch, Address, Host], connect_http: Connect
) -> None:
    _, address, _ = guarded
    async with connect_http(Runtime()):
        for who, metrics, tasks in (
            (ANNA, 403, 200),
            (ROOT, 200, 200),
            (METRICS, 200, 403),
            (RUNNER, 403, 403),
        ):
            assert (await request(address, "GET", "/metrics", who.headers)).status == metrics
            reply = await request(address, "GET", "/tasks", who.headers)
            assert reply.status == tasks
            if tasks == 403:
                assert json.loads(reply.body)["code"] == "permission_denied"
                assert (await handshake(address, headers=f"X-API-Key: {who.token}\r\n")).status == 403  # type: ignore[union-attr]


@promise("P30")
async def test_what_makes_state_is_for_admins(connect: Connect) -> None:
    async with connect(stateful()) as way:
        anna, root = way.of(ANNA.token, ANNA.caller), way.of(ROOT.token, ROOT.caller)
        for command in ("initialize", "cleanup"):
            with pytest.raises(Refused) as refused:
                await anna.ask(command)
            assert (refused.value.code, refused.value.status) == ("permission_denied", 403)
        assert (await anna.ask("ask"))["data"] == 1  # it is made for her all the same
        assert (await root.ask("initialize", {"size": 2}))["status"] == "completed"
        assert (await anna.ask("ask"))["data"] == 2
        await anna.aclose()
        await root.aclose()


@promise("P30")
async def test_a_workflow_is_no_way_around(connect_http: Connect) -> None:
    async with connect_http(stateful()) as way:
        for who, status in ((ANNA, 403), (ROOT, 200)):
            body = b'{"workflow_id": "make"}'
            reply = await way.request("POST", "/v2/workflow", body, who.headers)  # type: ignore[attr-defined]
            assert reply.status == status


# -- P31: keys are never in a URL, and are what they are --------------------------------------------------

GOOD = {
    "bearer": {"authorization": f"Bearer {ANNA.token}"},
    "in capitals": {"AUTHORIZATION": f"BEARER {ANNA.token}"},
    "two spaces": {"authorization": f"Bearer  {ANNA.token}"},
    "plain": {"x-api-key": ANNA.token},
    "both": {"authorization": f"Bearer {ANNA.token}", "x-api-key": ANNA.token},
}
BAD = {
    "unknown": STRANGER.headers,
    "expired": EXPIRED.headers,
    "another scheme": {"authorization": f"Basic {ANNA.token}"},
    "no scheme": {"authorization": ANNA.token},
    "no key": {"authorization": "Bearer"},
    "empty": {"x-api-key": ""},
    "two different": {"authorization": f"Bearer {ANNA.token}", "x-api-key": BEN.token},
    "in part": {"x-api-key": ANNA.token[:-1]},
    "and more": {"x-api-key": f"{ANNA.token}x"},
    "its digest": {"x-api-key": ANNA.key.digest},
    "its id": {"x-api-key": ANNA.key.id},
    "latin": {"x-api-key": "penstock_\xe9"},
    "long": {"x-api-key": "x" * 20_000},
}


@promise("P30", "P31")
@pytest.mark.parametrize("headers", GOOD.values(), ids=GOOD)
async def test_a_key_is_known_however_it_is_sent(
    guarded: tuple[Switch, Address, Host], connect_http: Connect, headers: dict[str, str]
) -> None:
    _, address, _ = guarded
    async with connect_http(Runtime()):
        assert (await request(address, "GET", "/tasks", headers)).status == 200
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    assert await handshake(address, headers=lines) is None


@promise("P30", "P31")
@pytest.mark.parametrize("headers", BAD.values(), ids=BAD)
async def test_no_key_is_taken_for_one(
    guarded: tuple[Switch, Address, Host], headers: dict[str, str]
) -> None:
    _, address, _ = guarded
    reply = await request(address, "GET", "/tasks", headers)
    is_shut(reply)
    for text in (ANNA.token, BEN.token, *headers.values()):
        assert not text or text.encode("latin-1") not in reply.body


@promise("P30", "P31")
@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "Origin"])
async def test_what_must_stand_once_does(guarded: tuple[Switch, Address, Host], name: str) -> None:
    _, address, _ = guarded
    connection = await Connection.open(address)
    twice = f"{name}: Bearer {ANNA.token}\r\n{name}: Bearer {BEN.token}\r\n"
    connection.send(f"GET /tasks HTTP/1.1\r\nHost: test\r\n{twice}\r\n".encode())
    assert (await connection.reply()).status == 400
    await connection.aclose()
    assert (await handshake(address, headers=twice)).status == 400  # type: ignore[union-attr]


@promise("P31")
@pytest.mark.parametrize("name", ["api_key", "key", "token", "access_token", "x-api-key", "authorization"])
async def test_a_key_in_a_url_is_none(
    guarded: tuple[Switch, Address, Host], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    _, address, _ = guarded
    is_shut(await request(address, "GET", f"/tasks?{name}={ANNA.token}"))
    is_shut(await handshake(address, f"/v2/ws?{name}={ANNA.token}"), "HEAD")  # type: ignore[arg-type]


@promise("P31")
async def test_a_browser_sends_its_key_as_a_subprotocol(
    guarded: tuple[Switch, Address, Host], connect_http: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    _, address, _ = guarded
    caplog.set_level(logging.DEBUG)
    connection = await Connection.open(address)
    connection.send(
        f"GET /v2/ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
        f"Sec-WebSocket-Protocol: penstock, bearer.{ANNA.token}\r\n\r\n".encode()
    )
    head = await connection.head()
    assert (head.status, head.headers["sec-websocket-protocol"]) == (101, "penstock")
    await connection.aclose()
    for offered in (
        f"penstock, bearer.{STRANGER.token}",
        "penstock, bearer.",
        "bearer",
        f"penstock, bearer.{ANNA.token}, bearer.{BEN.token}",
        ANNA.token,
    ):
        is_shut(await handshake(address, headers=f"Sec-WebSocket-Protocol: {offered}\r\n"), "HEAD")  # type: ignore[arg-type]
    different = f"Sec-WebSocket-Protocol: bearer.{ANNA.token}\r\nX-API-Key: {BEN.token}\r\n"
    is_shut(await handshake(address, headers=different), "HEAD")  # type: ignore[arg-type]
    said = "".join(f"{record.getMessage()} {record.args}" for record in caplog.records)
    for who in (ANNA, BEN, STRANGER):
        assert who.token not in said


@promise("P31")
def test_what_decides_is_a_comparison_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []
    honest = hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return honest(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    near = ANNA.key.digest[:-1] + ("0" if ANNA.key.digest[-1] != "0" else "1")
    table = KeyTable((Key(name="near", digest=near, scopes=ANNA.key.scopes), BEN.key))
    assert table.find(ANNA.token, 0) is None
    assert table.find(BEN.token, 0) is BEN.key
    assert compared == [(near, ANNA.key.digest), (BEN.key.digest, BEN.key.digest)]  # whole digests, no key


# -- P36 and P13: what one key sees of another's ----------------------------------------------------------


@promise("P36", "P13")
async def test_another_key_finds_nothing_of_a_call(connect: Connect) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime) as way:
        anna, ben = way.of(ANNA.token, ANNA.caller), way.of(BEN.token, BEN.caller)
        call = await anna.open("silent", task_id="fox", on_disconnect="continue")
        await zoo.journal.wait("started")
        for name in ("fox", call.request_id):
            await _finds_nothing(ben, name)
            assert (await anna.record(name))["status"] == "accepted"
        mine = await ben.open("silent", task_id="fox", on_disconnect="continue")  # her name is no name of his
        assert mine.request_id != call.request_id
        assert (await ben.record("fox"))["request_id"] == mine.request_id
        assert (await anna.record("fox"))["request_id"] == call.request_id
        assert await ben.cancel("fox") == "cancelled"
        assert (await anna.record("fox"))["status"] == "accepted"
        assert await anna.cancel("fox") == "cancelled"
        assert (await call.last())["status"] == "cancelled"
        await _finds_nothing(ben, call.request_id)
        await anna.aclose()
        await ben.aclose()


async def _finds_nothing(way: Way, name: str) -> None:
    for cursor in CURSORS:
        with pytest.raises(Refused) as refused:
            await way.resume(name, cursor)
        assert (refused.value.code, refused.value.status) == ("not_found", 404)
    for ask in (way.record, way.cancel):
        with pytest.raises(Refused) as refused:
            await ask(name)
        assert refused.value.status == 404


@promise("P36", "P13")
async def test_no_route_and_no_message_shows_another_key_s_call(
    guarded: tuple[Switch, Address, Host], connect_http: Connect
) -> None:
    _, address, _ = guarded
    zoo = model_zoo()
    async with connect_http(zoo.runtime) as way:
        anna = way.of(ANNA.token, ANNA.caller)
        call = await anna.open("silent", task_id="fox", on_disconnect="continue")
        await zoo.journal.wait("started")
        unknown = await request(address, "GET", "/tasks/unknown", BEN.headers)
        for name in ("fox", call.request_id):
            for method, path in (
                ("GET", f"/tasks/{name}"),
                ("DELETE", f"/tasks/{name}"),
                ("POST", f"/tasks/{name}/cancel"),
                ("GET", f"/tasks/{name}/events"),
                ("HEAD", f"/tasks/{name}/events"),
                ("GET", f"/tasks/{name}/events?after=99"),
            ):
                assert (await request(address, method, path, BEN.headers)).status == 404, (method, path)
            theirs = json.loads((await request(address, "GET", f"/tasks/{name}", BEN.headers)).body)
            # It is told in the words in which an unknown one is.
            assert theirs["error"] == json.loads(unknown.body)["error"].replace("unknown", name)
        assert json.loads((await request(address, "GET", "/tasks", BEN.headers)).body)["tasks"] == []
        async with Peer.open(address, headers=f"x-api-key: {BEN.token}\r\n") as peer:
            for name in ("fox", call.request_id):
                for kind in ("resume", "cancel", "input", "input_end", "detach"):
                    peer.send(kind, task_id=name, data=1)
                    answer = await peer.receive()
                    assert answer.get("code", answer["status"]) in ("not_found", "detached")
        assert (await anna.record("fox"))["status"] == "accepted"
        await anna.cancel("fox")
        await anna.aclose()


@promise("P36")
async def test_an_admin_sees_and_cancels_everybody_s_calls(connect: Connect) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime, limits=CallLimits()) as way:
        anna, root = way.of(ANNA.token, ANNA.caller), way.of(ROOT.token, ROOT.caller)
        call = await anna.open("silent", task_id="fox", on_disconnect="continue")
        await zoo.journal.wait("started")
        seen = await root.resume(call.request_id)
        assert (await seen.next_frame() or {})["request_id"] == call.request_id
        with pytest.raises(Refused):
            await root.record("fox")  # a name that Anna gave
        assert await root.cancel(call.request_id) == "cancelled"
        assert (await call.last())["status"] == "cancelled"
        records = way.dispatcher.tasks(ROOT.caller)
        assert [record.request_id for record in records] == [call.request_id]
        assert way.dispatcher.tasks(BEN.caller) == []
        await anna.aclose()
        await root.aclose()


# -- a key that is taken back ------------------------------------------------------------------------------


@promise("P30")
@pytest.mark.parametrize("less", [(), (ANNA_WITH_LESS,)], ids=["gone", "of another scope"])
async def test_a_key_that_is_taken_back_opens_nothing_more(tmp_path: Path, less: tuple[Holder, ...]) -> None:
    file = write_keys(tmp_path / "keys.txt", ANNA, BEN)
    zoo = model_zoo()
    switch = Switch()
    async with hosted(switch, auth_keys=file) as (host, address), App(zoo.runtime) as app:
        switch.inner = app
        async with Peer.open(address, headers=f"x-api-key: {ANNA.token}\r\n") as peer:
            assert await peer.until_pong() == []
            write_keys(file, BEN, *less)
            assert host._keys is not None
            host._keys.reload()
            refused = await request(address, "GET", "/tasks", ANNA.headers)
            assert refused.status == (403 if less else 401)
            assert (await request(address, "GET", "/tasks", BEN.headers)).status == 200
            peer.send("ping")
            with pytest.raises(Ended) as ended:
                await peer.receive()
            assert ended.value.code == 1008
