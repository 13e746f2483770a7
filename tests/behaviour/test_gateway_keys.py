"""P30 at a gateway: every route of it, with no key, with wrong ones, and with a key of each scope."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from behaviour.keyring import ANNA, EVERYBODY, EXPIRED, METRICS, ROOT, RUNNER, STRANGER, Holder, write_keys
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S, Address, Connection
from penstock.calls.tasks import TaskOwner
from penstock.compose import build_gateway
from penstock.server.host import Host
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio

PROBES = {"/livez", "/readyz", "/startupz", "/health"}
PAGES = {"/docs", "/playground/index.html"}  # the same for everybody, as are the files they are made of
ADMINS = ("/v2/runners", "/v2/kv", "/metrics")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
Guarded = tuple[Address, Host]


@pytest.fixture(scope="module")
async def guarded(
    anyio_backend: object, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Address, Host]]:
    keys: Path = write_keys(tmp_path_factory.mktemp("keys") / "keys.txt", *EVERYBODY)
    settings = ServerSettings(port=0, auth_keys=keys, allow_host="test")
    hub, extension = build_gateway("gateway", settings)
    ready: list[str] = []
    host = Host(hub, settings, ready.append, lambda _: ("text/plain", b"counted 1\n"), extension)
    tasks = TaskOwner()
    serving = tasks.start(host.serve())
    with anyio.fail_after(WAIT_S):
        while not ready:  # noqa: ASYNC110 - the host tells no event
            await anyio.sleep(0.005)
    url = urlsplit(ready[0])
    yield (str(url.hostname), int(url.port or 0)), host
    host.stop()
    with anyio.fail_after(2 * WAIT_S):
        await serving


async def asked(at: Guarded, method: str, path: str, who: Holder | None) -> tuple[int, str]:
    """Return what a route answers to somebody: the status, and the code of an error."""
    connection = await Connection.open(at[0])
    try:
        connection.request(method, path.replace("{id}", "x"), None, {} if who is None else who.headers)
        reply = await connection.reply(method)
        wrong = reply.status >= 400 and method != "HEAD" and reply.body
        return reply.status, json.loads(reply.body).get("code", "") if wrong else ""
    finally:
        await connection.aclose()


def paths(at: Guarded) -> list[str]:
    return [route.path for route in at[1]._application.routes]


@promise("P30")
@pytest.mark.parametrize("who", [None, STRANGER, EXPIRED], ids=["no key", "a wrong key", "an old key"])
async def test_no_route_of_a_gateway_opens_without_a_key(guarded: Guarded, who: Holder | None) -> None:
    assert {"/v2/runners", "/v2/runners/{id}", "/v2/runners/{id}/drain", *PROBES} <= {*paths(guarded)}
    for path in (*paths(guarded), *PAGES, "/nowhere"):
        for method in METHODS:
            if path in PAGES and method in ("GET", "HEAD"):
                assert await asked(guarded, method, path, who) == (200, ""), path
                continue
            if path in PROBES and method in ("GET", "HEAD"):
                assert (await asked(guarded, method, path, who))[0] in (200, 503), path  # there is no runner
            else:
                openai = path.startswith("/v1/")  # which says it in OpenAI's words
                code = "" if method == "HEAD" or openai else "unauthenticated"
                assert await asked(guarded, method, path, who) == (401, code), (method, path)


@promise("P30")
@pytest.mark.parametrize("who", [ANNA, RUNNER, METRICS], ids=["caller", "runner", "metrics"])
async def test_a_scope_opens_its_own_routes_of_a_gateway_only(guarded: Guarded, who: Holder) -> None:
    for route in guarded[1]._application.routes:
        path = route.path
        if path in PROBES | PAGES:
            continue
        for method in route.handlers:
            status, _ = await asked(guarded, method, path, who)
            counts = who is METRICS and path == "/metrics"
            shut = path.startswith(ADMINS) if who is ANNA else not counts
            assert (status == 403) == shut, (method, path, status)
            assert status != 401


@promise("P30")
async def test_an_admin_s_key_opens_every_route_of_a_gateway(guarded: Guarded) -> None:
    for route in guarded[1]._application.routes:
        for method in route.handlers:
            if "events" not in route.path:  # those have no end
                assert (await asked(guarded, method, route.path, ROOT))[0] not in (401, 403, 405), route.path


@promise("P30")
async def test_only_a_runner_s_key_opens_the_way_in_for_runners(guarded: Guarded) -> None:
    for who in (None, STRANGER, EXPIRED, ANNA, METRICS, ROOT, RUNNER):
        connection = await Connection.open(guarded[0])
        key = "" if who is None else f"X-API-Key: {who.token}\r\n"
        head = "GET /v2/runners HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
        connection.send(f"{head}{key}\r\n".encode())
        status = (await connection.head("HEAD")).status
        due = 101 if who is RUNNER else 403 if who in (ANNA, METRICS, ROOT) else 401
        assert status == due, who and who.key.name
        await connection.aclose()
