"""`/metrics` counts what callers did, and no caller can make a series."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from behaviour.connect import HttpNdjson, Refused
from behaviour.keyring import ROOT, write_keys
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S, Address, Connection
from behaviour.seam import Watched
from behaviour.served import hosted
from penstock import App, CommandError, Runtime
from penstock.calls.limits import CallLimits
from penstock.errors import ErrorCode
from penstock.observability.exposition import Exposition
from penstock.observability.recorder import Recorder
from penstock.protocol.messages import CancelReason
from penstock.runtime.manifest import Manifest
from penstock.testing import model_zoo
from server.peer import Peer

pytestmark = pytest.mark.anyio

HOSTILE = 10_000
CONNECTIONS = 8
AHEAD = 20  # requests sent before their answers are read, well below what a server keeps
TALE = {"workflows": {"tale": {"steps": [{"id": "a", "command": "add", "input": {"a": 1, "b": 2}}]}}}

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def project() -> Runtime:
    rt = Runtime(Manifest.model_validate({"name": "metrics", **TALE}))

    @rt.command("add")
    async def add(a: int, b: int) -> int:
        return a + b

    @rt.command("refuse")
    async def refuse(code: str) -> None:
        raise CommandError(code, code if code in {known.value for known in ErrorCode} else None)

    @rt.streaming_command("count", concurrency=1)
    async def count(to: int = 3) -> AsyncIterator[int]:
        for number in range(to):
            yield number
            await asyncio.sleep(0)

    return rt


@asynccontextmanager
async def metered(runtime: Runtime, limits: CallLimits | None = None) -> AsyncIterator[HttpNdjson]:
    """Serve a project as `penstock run` does, with metrics."""
    recorder = Recorder()
    dispatcher = Watched(App(runtime, observer=recorder, limits=limits))
    async with hosted(dispatcher, exposition=Exposition(recorder)) as (_, address):
        way = HttpNdjson(dispatcher, address)
        try:
            yield way
        finally:
            await way.aclose()


async def shown(way: HttpNdjson) -> Samples:
    """Return what `/metrics` shows: the labels and values of each series, by name."""
    reply = await way.request("GET", "/metrics", headers={"accept": "application/openmetrics-text"})
    assert reply.status == 200
    found: Samples = defaultdict(dict)
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            said = frozenset((name, value) for name, value in sample.labels.items() if value)
            found[sample.name][said] = sample.value
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    """Return one value; 0 for a series that is not there."""
    return samples[f"penstock_{name}"].get(frozenset(labels.items()), 0)


async def until(way: HttpNdjson, holds: Callable[[Samples], bool]) -> Samples:
    """Return what is shown once it is so."""
    with anyio.fail_after(WAIT_S):
        while not holds(samples := await shown(way)):
            await anyio.lowlevel.checkpoint()
    return samples


@promise("W3")
async def test_calls_are_counted_by_how_they_ended() -> None:
    async with metered(project()) as way:
        assert (await way.ask("add", {"a": 1, "b": 2}))["data"] == 3
        assert (await (await way.open("count")).last())["status"] == "completed"
        with pytest.raises(Refused):
            await way.open("add", {"a": "x"})
        assert (await way.ask("refuse", {"code": "gone"}))["code"] == "gone"
        body = json.dumps({"workflow_id": "tale", "input": {}}).encode()
        assert (await way.request("POST", "/v2/workflow", body)).status == 200
        samples = await shown(way)
    assert of(samples, "calls_total", command="add", status="completed") == 2  # one was the workflow's step
    assert of(samples, "calls_total", command="refuse", status="error", reason="gone") == 1
    assert of(samples, "calls_total", workflow="tale", status="completed") == 1
    assert of(samples, "items_total", command="count") == 3
    assert of(samples, "refusals_total", command="add", code="invalid_argument") == 1
    assert of(samples, "time_to_first_item_seconds_count", command="count") == 1
    assert of(samples, "call_duration_seconds_count", command="add") == 2
    assert of(samples, "queue_seconds_count", workflow="tale") == 1
    assert of(samples, "permits", command="count") == 1
    flying = samples["penstock_calls_in_flight"]
    assert flying.keys() == {
        frozenset({pair})
        for pair in [*(("command", name) for name in ("add", "refuse", "count")), ("workflow", "tale")]
    }
    assert set(flying.values()) == {0}


@promise("W3")
async def test_requests_are_counted_by_where_they_came_to_and_how_they_were_answered(tmp_path: Path) -> None:
    recorder = Recorder()
    dispatcher = Watched(App(project(), observer=recorder))
    keys = write_keys(tmp_path / "keys.txt", ROOT)
    due: Counter[tuple[str, str, str]] = Counter()
    async with hosted(dispatcher, exposition=Exposition(recorder), auth_keys=keys) as (_, address):
        for method, path, body, headers, *answered in asked():
            connection = await Connection.open(address)
            connection.request(method, path, body, headers)
            assert str((await connection.reply(method)).status) == answered[1]
            await connection.aclose()
            due[tuple(answered)] += 1
        way = HttpNdjson(dispatcher, address)
        way.credentials = ROOT.headers
        async with Peer.open(address) as refused:
            due["/v2/ws", str(refused.status), "unauthenticated"] += 1
        head = f"authorization: {ROOT.headers['authorization']}\r\n"
        async with Peer.open(address, headers=head) as peer:
            due["/v2/ws", "101", ""] += 1
            peer.send("nonsense")
            await peer.receive()
            samples = await until(way, lambda now: of(now, "websockets", route="/v2/ws") == 1)
            assert of(samples, "websocket_refusals_total", code="invalid_argument") == 1
        samples = await until(way, lambda now: not of(now, "websockets", route="/v2/ws"))
        await way.aclose()
    given = [dict(labels) for labels in samples["penstock_requests_total"]]
    counted = {
        (each.get("route", ""), each["status"], each.get("code", "")): of(samples, "requests_total", **each)
        for each in given
    }
    assert {key: count for key, count in counted.items() if key[0] != "/metrics"} == due
    assert of(samples, "requests_in_flight", route="/v2/execute") == 0
    assert of(samples, "requests_in_flight", route="/metrics") == 1  # the one that asks


def asked() -> Iterator[tuple[str, str, bytes | None, dict[str, str], str, str, str]]:
    """Yield requests, each with the route, the status and the code that are counted for it."""
    run, key, none = "/v2/execute", ROOT.headers, {}
    good = json.dumps({"command": "add", "input": {"a": 1, "b": 2}}).encode()
    wrong = json.dumps({"command": "add", "input": {"a": 1}}).encode()
    yield "POST", run, good, key, run, "200", ""
    yield "POST", run, wrong, key, run, "400", "invalid_argument"
    yield "POST", run, good, none, run, "401", "unauthenticated"
    yield "POST", run, good, {**key, "origin": "https://evil.example"}, run, "403", "permission_denied"
    yield "GET", "/tasks/evil", None, key, "/tasks/{id}", "404", "not_found"
    yield "PUT", "/tasks", b"", key, "/tasks", "405", "method_not_allowed"
    yield "GET", "/evil", None, key, "", "404", "not_found"
    yield "GET", "/evil", None, none, "", "401", "unauthenticated"
    yield "GET", "/" + "e" * 9000, None, key, "", "414", "uri_too_long"
    yield "GET", "/livez", None, none, "/livez", "200", ""


@promise("P9")
async def test_work_that_ignores_its_cancel_is_shown_until_it_stops() -> None:
    zoo, name = model_zoo(), "ignore_cancel"
    async with metered(zoo.runtime, CallLimits(cancel_grace_s=0.05)) as way, AsyncExitStack() as at_last:
        at_last.callback(zoo.release)
        call = await way.open(name)
        await call.until("streaming")
        assert of(await shown(way), "calls_running", command=name) == 1
        await call.cancel()
        assert (await call.last())["status"] == "cancelled"
        samples = await until(way, lambda now: of(now, "stuck_calls", command=name) == 1)
        assert of(samples, "cancelled_calls_running", command=name) == 1
        assert of(samples, "calls_running", command=name) == 1
        assert of(samples, "calls_in_flight", command=name) == 0
        assert of(samples, "cancels_total", command=name, reason="caller") == 1
        assert of(samples, "cancel_stop_seconds_count", command=name, reason="caller") == 0
        zoo.release()
        samples = await until(way, lambda now: not of(now, "calls_running", command=name))
        assert of(samples, "stuck_calls", command=name) == 0
        assert of(samples, "cancelled_calls_running", command=name) == 0
        assert of(samples, "cancel_stop_seconds_count", command=name, reason="caller") == 1


@promise("P5")
async def test_who_leaves_is_counted_with_how_long_that_took() -> None:
    zoo, labels = model_zoo(), {"command": "silent", "reason": "disconnect"}
    async with metered(zoo.runtime) as way:
        call = await way.open("silent")
        await zoo.journal.wait("started")
        await call.drop()
        samples = await until(way, lambda now: of(now, "cancel_stop_seconds_count", **labels) == 1)
    assert of(samples, "calls_total", status="cancelled", **labels) == 1
    assert of(samples, "cancel_delivery_seconds_count", **labels) == 1
    assert 0 <= of(samples, "cancel_delivery_seconds_sum", **labels) < WAIT_S


@promise("W3")
async def test_without_metrics_there_is_no_such_route() -> None:
    dispatcher = Watched(App(project()))
    async with hosted(dispatcher) as (_, address):
        way = HttpNdjson(dispatcher, address)
        assert (await way.request("GET", "/metrics")).status == 404
        await way.aclose()


# -- labels --------------------------------------------------------------------------------------------

SPICE = cycle(['"', "\\", "{}", "\n", "é", "\u2028", "\U0001f600", "=,", "' OR 1", "%0a", "x" * 300, "# EOF"])


CODES = {code.value for code in ErrorCode}
ALLOWED = {
    "command": {"add", "refuse", "count"},
    "workflow": {"tale"},
    "status": {"completed", "error", "cancelled", "200", "400", "404", "500"},
    "code": CODES,
    "route": {"/v2/execute", "/v2/workflow", "/tasks/{id}", "/metrics"},
    "reason": CODES | {reason.value for reason in CancelReason},
}
OF_PYTHON = {"implementation", "major", "minor", "patchlevel"}
Request = tuple[str, str, "bytes | None", dict[str, str]]


def hostile_requests() -> Iterator[Request]:
    """Yield requests, each with a name nobody else uses in one of the places where a caller can put one."""
    for number, spice in zip(range(HOSTILE), SPICE, strict=False):
        name, plain = f"evil{number}{spice}", f"evil{number}"
        body, path, headers = _places(name, plain)[number % 8]
        given = None if body is None else json.dumps(body).encode()
        yield ("GET" if given is None else "POST"), path, given, headers


def _places(name: str, plain: str) -> list[tuple[Any, str, dict[str, str]]]:
    add, run = {"command": "add", "input": {"a": 1, "b": 2}}, "/v2/execute"
    return [
        ({"command": name, "input": {}}, run, {}),
        ({"workflow_id": name, "input": {}}, "/v2/workflow", {}),
        ({**add, "task_id": plain}, run, {"x-request-id": plain, "traceparent": plain}),
        ({**add, "task_id": name}, run, {}),
        ({**add, "input": {"a": 1, "b": 2, name: 3}}, run, {}),
        ({"command": "refuse", "input": {"code": name}}, run, {"user-agent": plain}),
        (None, f"/tasks/{plain}", {}),
        (None, f"/{plain}", {"accept": f"application/openmetrics-text; version={plain}"}),
    ]


@promise("P41")
async def test_ten_thousand_names_that_callers_made_up_are_no_labels() -> None:
    requests = hostile_requests()
    async with metered(project()) as way:
        assert await _send_all(way.address, islice(requests, HOSTILE // 10)) == HOSTILE // 10
        await shown(way)  # as that counts too
        early = await shown(way)
        assert await _send_all(way.address, requests) == HOSTILE - HOSTILE // 10
        late = await shown(way)
        exposed = (await way.request("GET", "/metrics")).body
    assert b"evil" not in exposed
    assert of(late, "refusals_total", code="not_found") == HOSTILE // 4  # it has seen them
    assert of(late, "calls_total", command="refuse", status="error", reason="command_failed") == HOSTILE // 8
    assert _series(early) == _series(late)
    values = _values(late)
    assert {name: values[name] - allowed for name, allowed in ALLOWED.items() if values[name] - allowed} == {}
    assert values.keys() - ALLOWED.keys() == {"le", "version", *OF_PYTHON}


def _series(samples: Samples) -> dict[str, set[Any]]:
    # How late the event loop is, is told from when it was looked at first: that depends on no request.
    return {name: set(series) for name, series in samples.items() if "event_loop_delay" not in name}


async def _send_all(address: Address, requests: Iterator[Request]) -> int:
    """Send requests on several connections; return how many were answered."""
    answers: list[int] = []

    async def caller() -> None:
        answers.append(await _send(address, requests))

    async with anyio.create_task_group() as tasks:
        for _ in range(CONNECTIONS):
            tasks.start_soon(caller)
    return sum(answers)


async def _send(address: Address, requests: Iterator[Request]) -> int:
    """Send requests on one connection until there are no more; return how many were answered."""
    connection = await Connection.open(address)
    answered = 0
    while batch := [request for _, request in zip(range(AHEAD), requests, strict=False)]:
        for request in batch:
            connection.request(*request)
        for method, *_ in batch:
            assert (await connection.reply(method)).status in (200, 400, 404, 500)
            answered += 1
    await connection.aclose()
    return answered


def _values(samples: Samples) -> dict[str, set[str]]:
    """Return the values of each label."""
    found: dict[str, set[str]] = defaultdict(set)
    for series in samples.values():
        for name, value in (pair for labels in series for pair in labels):
            found[name].add(value)
    return found
