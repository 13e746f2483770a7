"""The runners of a gateway over HTTP, and calls that say which runner they are for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.fakes import PREDICT, FakeRunner, turns
from penstock.calls.tasks import TaskOwner
from penstock.compose import build_gateway
from penstock.gateway.hub import Hub
from penstock.gateway.runner import Parting
from penstock.observability.recorder import Recorder
from penstock.protocol.runners import Offer
from penstock.server.asgi import Application
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def served(observer: Recorder | None = None) -> AsyncIterator[tuple[Hub, httpx.AsyncClient]]:
    """A gateway and who asks it."""
    settings = ServerSettings()
    hub, extension = build_gateway("front", settings, observer=observer or Recorder())
    application = Application(hub, settings, extension=extension)
    transport = httpx.ASGITransport(app=application)
    async with hub, httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield hub, http
        for runner in hub.runners:
            runner.lose("the test is over", Parting.LEFT)
        await turns()
    await application.aclose()


async def answered(http: httpx.AsyncClient, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Return the status and the body of an answer."""
    reply = (
        await http.request(method, path, json=body) if body is not None else await http.request(method, path)
    )
    return reply.status_code, reply.json()


async def test_runners_are_listed_with_what_they_offer() -> None:
    async with served() as (hub, http):
        assert await answered(http, "GET", "/v2/runners") == (200, {"runners": []})
        FakeRunner(hub, "gpu-1", (PREDICT, Offer(name="chat")), labels={"zone": "a"}, capacity=9).connect()
        status, shown = await answered(http, "GET", "/v2/runners")
        [runner] = shown["runners"]
        assert (status, runner.pop("connected_at") > 0) == (200, True)
        assert runner == {
            "name": "gpu-1",
            "state": "connected",
            "status": "connected, 0 calls",
            "software": "",
            "calls": 0,
            "capacity": 9,
            "weight": 1.0,
            "prefix_blocks": 0,
            "labels": {"zone": "a"},
            "commands": {"predict": 2, "chat": 1},
            "workflows": [],
        }
        status, one = await answered(http, "GET", "/v2/runners/gpu-1")
        assert (status, one["name"]) == (200, "gpu-1")


async def test_a_runner_is_drained_weighed_and_removed() -> None:
    async with served() as (hub, http):
        FakeRunner(hub, "one", (PREDICT,)).connect()
        assert (await answered(http, "POST", "/v2/runners/one/drain"))[1]["state"] == "draining"
        assert (await answered(http, "DELETE", "/v2/runners/one/drain"))[1]["state"] == "connected"
        status, shown = await answered(http, "POST", "/v2/runners/one/weight", {"weight": 0.5})
        assert (status, shown["weight"]) == (200, 0.5)
        status, shown = await answered(http, "DELETE", "/v2/runners/one")
        assert (status, shown["state"]) == (200, "gone")
        assert len(hub.runners) == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v2/runners/nobody", None, 404, "not_found"),
        ("DELETE", "/v2/runners/nobody", None, 404, "not_found"),
        ("POST", "/v2/runners/nobody/drain", None, 404, "not_found"),
        ("POST", "/v2/runners/nobody/weight", {"weight": 1}, 404, "not_found"),
        ("POST", "/v2/runners/one/weight", {}, 400, "invalid_argument"),
        ("POST", "/v2/runners/one/weight", {"weight": "much"}, 400, "invalid_argument"),
        ("POST", "/v2/runners/one/weight", {"weight": -1}, 400, "invalid_argument"),
        ("POST", "/v2/runners/one/weight", {"weight": 1e9}, 400, "invalid_argument"),
        ("POST", "/v2/runners/one/weight", None, 415, "unsupported_media_type"),
        ("PUT", "/v2/runners", None, 405, "method_not_allowed"),
        ("POST", "/v2/execute", {"command": "predict", "route": 7}, 400, "invalid_argument"),
        (
            "POST",
            "/v2/execute",
            {"command": "predict", "route": {"labels": {"a": 1}}},
            400,
            "invalid_argument",
        ),
        (
            "POST",
            "/v2/execute",
            {"command": "predict", "route": {"sticky": "x" * 257}},
            400,
            "invalid_argument",
        ),
        (
            "POST",
            "/v2/execute",
            {"command": "predict", "route": {"labels": {"gpu": "h100"}}},
            503,
            "unavailable",
        ),
        ("POST", "/v2/execute", {"command": "nothing"}, 404, "not_found"),
        ("POST", "/predict", {"input": []}, 400, "invalid_argument"),
    ],
)
async def test_what_is_wrong_is_told(method: str, path: str, body: Any, status: int, code: str) -> None:
    async with served() as (hub, http):
        FakeRunner(hub, "one", (PREDICT,)).connect()
        found, answer = await answered(http, method, path, body)
        assert (found, answer["code"]) == (status, code)


async def test_a_route_in_the_body_finds_its_runner() -> None:
    async with served() as (hub, http):
        FakeRunner(hub, "plain", (PREDICT,)).connect()
        gpu = FakeRunner(hub, "gpu", (PREDICT,), labels={"gpu": "a100"}).connect()
        tasks = TaskOwner()
        body = {"command": "predict", "route": {"labels": {"gpu": "a100"}, "sticky": None}, "task_id": "fox"}
        asking = tasks.start(answered(http, "POST", "/v2/execute", body))
        opened = []
        while not opened:
            opened = await gpu.opened()
        gpu.item(opened[0].request_id, "from the gpu")
        gpu.end(opened[0].request_id)
        status, answer = await asking
        assert (status, answer["data"]) == (200, "from the gpu")


async def test_calls_are_counted_also_when_commands_come_later() -> None:
    recorder = Recorder()
    async with served(recorder) as (hub, http):
        one = FakeRunner(hub, "one", (PREDICT,)).connect()
        tasks = TaskOwner()
        asking = tasks.start(answered(http, "POST", "/v2/execute", {"command": "predict"}))
        opened = []
        while not opened:
            opened = await one.opened()
        one.end(opened[0].request_id)
        await asking
        before = sum(recorder.commands["predict"].duration.counts)
        FakeRunner(hub, "two", (Offer(name="chat"),)).connect()
        assert set(recorder.commands) == {"predict", "chat"}
        assert sum(recorder.commands["predict"].duration.counts) == before == 1


async def test_the_openapi_document_has_every_route_and_its_answers_fit() -> None:
    async with served() as (hub, http):
        FakeRunner(hub, "one", (PREDICT,), labels={"zone": "a"}).connect()
        _, spec = await answered(http, "GET", "/openapi.json")
        OpenAPIV31SpecValidator(spec).validate()
        paths = {path: set(item) for path, item in spec["paths"].items() if path.startswith("/v2/runners")}
        assert paths == {
            "/v2/runners": {"get"},
            "/v2/runners/{id}": {"get", "delete"},
            "/v2/runners/{id}/drain": {"post", "delete"},
            "/v2/runners/{id}/weight": {"post"},
        }
        for path, name in (("/v2/runners", "Runners"), ("/v2/runners/one", "Runner")):
            _, shown = await answered(http, "GET", path)
            schema = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
            Draft202012Validator(schema).validate(shown)
