"""The OpenAPI document: valid, whole, and true of what the protocol page shows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from enum import Enum
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from docs.pages import DOCS, fences
from penstock import App, Runtime
from penstock.protocol.dispatch import CommandDescription, Description, TaskRecord
from penstock.protocol.requests import CallBody
from penstock.runtime.manifest import Manifest
from penstock.server.asgi import Application
from penstock.server.door import OPEN
from penstock.server.openapi.document import document
from penstock.server.openapi.operations import COMMAND, OPERATIONS

pytestmark = pytest.mark.anyio

EMPTY = Description(name="empty", version="1", default_command="predict", commands={})
STEP = {"id": "a", "command": "size", "input": {"text": "a"}}
WORKFLOW = {"input_schema": {"type": "object", "required": ["text"]}, "steps": [STEP]}
TOLD = {**WORKFLOW, "description": "Make it short.\nReally."}


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Tree(BaseModel):
    """Refers to itself, and to another type."""

    name: str
    mood: Mood = Mood.GOOD
    children: list[Tree] = []


def project(**manifest: Any) -> Runtime:
    rt = Runtime(Manifest(name="forest", version="2.0.0", default_command="grow", **manifest))

    @rt.streaming_command("grow")
    async def grow(tree: Tree, rings: int = 3) -> AsyncIterator[Tree]:
        """Let a tree grow."""
        yield tree

    @rt.command("size")
    async def size(text: str) -> int:
        return len(text)

    return rt


def nothing(_: str) -> tuple[str, bytes]:
    return "text/plain", b""


async def shown(runtime: Runtime) -> dict[str, Any]:
    async with App(runtime) as app:
        application = Application(app, exposition=nothing)
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            reply = await http.get("/openapi.json")
        await application.aclose()
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = reply.json()
    return found


def validator(spec: dict[str, Any], name: str) -> Draft202012Validator:
    """Return what checks against a component."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": spec["components"]})


def accepts(spec: dict[str, Any], name: str, value: object) -> bool:
    return validator(spec, name).is_valid(value)


@pytest.mark.parametrize("workflows", [{}, {"shorten": WORKFLOW, "open": {"steps": [STEP]}}])
async def test_the_document_is_valid_openapi(workflows: dict[str, Any]) -> None:
    spec = await shown(project(workflows=workflows))
    OpenAPIV31SpecValidator(spec).validate()
    for name in spec["components"]["schemas"]:
        Draft202012Validator.check_schema(validator(spec, name).schema)


def test_the_document_of_a_project_that_still_loads_is_valid() -> None:
    spec = document(EMPTY, OPERATIONS)
    OpenAPIV31SpecValidator(spec).validate()
    assert accepts(spec, "Execute", {"command": "any", "input": {"x": 1}})
    assert not accepts(spec, "Execute", {"input": {}})
    assert accepts(spec, "Default", {})


def test_where_keys_are_needed_it_says_so() -> None:
    spec = document(EMPTY, OPERATIONS, needs_key=True)
    OpenAPIV31SpecValidator(spec).validate()
    named = {name for each in spec["security"] for name in each}
    assert named == spec["components"]["securitySchemes"].keys()
    opened = {
        path for path, item in spec["paths"].items() for told in item.values() if told.get("security") == []
    }
    assert opened == OPEN
    for item in spec["paths"].values():
        for told in item.values():
            assert "WWW-Authenticate" in told["responses"]["401"]["headers"]
    assert "security" not in document(EMPTY, OPERATIONS)


async def test_every_route_is_in_it_and_no_other() -> None:
    async with App(project()) as app:
        application = Application(app, exposition=nothing)
        routes = {
            (method, route.path) for route in application.routes if route.listed for method in route.handlers
        }
        await application.aclose()
    assert routes == OPERATIONS.keys()
    spec = await shown(project())
    shown_ = {(method.upper(), path) for path, item in spec["paths"].items() for method in item}
    assert shown_ - {("POST", f"/v2/commands/{name}") for name in ("grow", "size")} == routes - {
        ("POST", COMMAND)
    }


async def test_a_server_without_metrics_has_no_route_for_them() -> None:
    async with App(project()) as app:
        application = Application(app)
        routes = {
            (method, route.path) for route in application.routes if route.listed for method in route.handlers
        }
        await application.aclose()
    assert OPERATIONS.keys() - routes == {("GET", "/metrics")}


async def test_each_command_and_workflow_is_an_operation_of_its_own() -> None:
    spec = await shown(project(workflows={"shorten": TOLD}))
    grow, size = (spec["paths"][f"/v2/commands/{name}"]["post"] for name in ("grow", "size"))
    shorten = spec["paths"]["/v2/workflows/shorten"]["post"]
    names = [each["operationId"] for each in (grow, size, shorten)]
    assert names == ["command.grow", "command.size", "workflow.shorten"]
    assert [each["summary"] for each in (grow, size, shorten)] == [
        "Let a tree grow.",
        "Run size.",
        "Make it short.",
    ]
    assert [each.get("description") for each in (grow, size, shorten)] == [
        None,
        None,
        "Make it short.\nReally.",
    ]
    body = grow["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert accepts(spec, body, {"input": {"tree": {"name": "a"}}})
    assert not accepts(spec, body, {"input": {"tree": {"name": 1}}})
    content = grow["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "application/x-ndjson", "text/event-stream"}
    item = {**content["application/x-ndjson"]["x-itemSchema"], "components": spec["components"]}
    frame = {"type": "task", "timestamp": 1.0, "version": "v2", "task_id": "a", "seq": 1, "command": "grow"}
    streams = Draft202012Validator(item)
    assert streams.is_valid({**frame, "status": "streaming", "data": {"name": "a"}})
    assert not streams.is_valid({**frame, "status": "streaming", "data": 3})
    assert streams.is_valid({**frame, "status": "completed"})
    assert not streams.is_valid({**frame, "status": "completed", "data": {"name": "a"}})
    assert {"400", "401", "404", "429", "500", "503", "504"} <= grow["responses"].keys()


def test_every_operation_has_a_name_of_its_own() -> None:
    assert len({operation.name for operation in OPERATIONS.values()}) == len(OPERATIONS)


def test_every_field_of_a_body_is_in_it_and_no_other() -> None:
    body = document(EMPTY, ())["components"]["schemas"]["Body"]
    assert body["properties"].keys() == set(CallBody.__struct_fields__)


def test_every_field_of_a_task_is_in_it() -> None:
    task = document(EMPTY, ())["components"]["schemas"]["TaskRecord"]
    assert task["properties"].keys() == set(TaskRecord.__struct_fields__)


@pytest.mark.parametrize(
    ("body", "good"),
    [
        (
            {"command": "grow", "input": {"tree": {"name": "a", "children": [{"name": "b", "mood": "bad"}]}}},
            True,
        ),
        ({"command": "grow", "input": {"tree": {"name": "a", "children": [{"name": 1}]}}}, False),
        ({"command": "grow", "input": {"tree": {"name": "a", "mood": "so-so"}}}, False),
        ({"command": "grow", "input": {"text": "of another command"}}, False),
        ({"command": "grow"}, False),
        ({"command": "size", "input": {"text": "a"}, "unknown": "ignored"}, True),
        ({"command": "nobody", "input": {}}, False),
        ({"input": {"text": "a"}}, False),
        ({"command": "size", "input": {"text": "a"}, "task_id": "a b"}, False),
        ({"command": "size", "input": {"text": "a"}, "task_id": None, "timeout": None}, True),
        ({"command": "size", "input": {"text": "a"}, "timeout": 0}, False),
        ({"command": "size", "input": {"text": "a"}, "on_disconnect": {"grace_s": 30}}, True),
        ({"command": "size", "input": {"text": "a"}, "on_disconnect": {"grace_s": 30, "more": 1}}, False),
    ],
)
async def test_a_body_is_that_of_its_command(body: dict[str, Any], good: bool) -> None:
    assert accepts(await shown(project()), "Execute", body) is good


async def test_v1_takes_the_input_of_the_default_command() -> None:
    spec = await shown(project())
    assert accepts(spec, "Default", {"input": {"tree": {"name": "a"}}})
    assert not accepts(spec, "Default", {"input": {"text": "a"}})


async def test_items_and_answers_are_those_of_the_command() -> None:
    spec = await shown(project())
    frame = {
        "type": "task",
        "status": "streaming",
        "timestamp": 1.0,
        "version": "v2",
        "task_id": "a",
        "seq": 1,
    }
    assert accepts(spec, "ExecuteFrame", {**frame, "command": "grow", "data": {"name": "a"}})
    assert not accepts(spec, "ExecuteFrame", {**frame, "command": "grow", "data": 3})
    assert not accepts(spec, "ExecuteFrame", {**frame, "command": "size", "data": 3})
    assert accepts(spec, "ExecuteFrame", {**frame, "status": "completed", "command": "size", "data": 3})
    assert not accepts(spec, "ExecuteFrame", {**frame, "status": "completed", "command": "size", "data": "3"})
    assert accepts(spec, "Executed", {**frame, "status": "completed", "command": "grow", "data": None})
    assert not accepts(spec, "Executed", {**frame, "status": "completed", "command": "size", "data": None})
    assert not accepts(spec, "Executed", {**frame, "status": "completed", "command": "size"})


def placed(*schemas: Any) -> dict[str, Any]:
    """Return the components of commands that take these inputs."""
    commands = {
        f"x{number}": CommandDescription(description="", streaming=False, input_schema=schema, item_schema={})
        for number, schema in enumerate(schemas)
    }
    description = Description(name="n", version="1", default_command="x0", commands=commands)
    found: dict[str, Any] = document(description, ())["components"]["schemas"]
    return found


def test_references_within_a_schema_lead_to_where_things_stand() -> None:
    schema = {
        "$defs": {
            "A": {"type": "object", "properties": {"self": {"$ref": "#"}, "$ref": {"const": "#/$defs/A"}}},
            "not a name": {"$ref": "#/$defs/A/properties/self"},
        },
        "discriminator": {"propertyName": "kind", "mapping": {"a": "#/$defs/A"}},
        "anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/not a name"}],
        "default": "#/$defs/A",
    }
    found, types = placed(schema), "#/components/schemas/type."
    root = "#/components/schemas/command.x0.input"
    own = found["command.x0.input"]
    assert own["anyOf"] == [{"$ref": f"{types}A"}, {"$ref": f"{root}/$defs/not a name"}]
    assert own["discriminator"]["mapping"] == {"a": f"{types}A"}
    assert own["default"] == "#/$defs/A"
    assert own["$defs"] == {"not a name": {"$ref": f"{types}A/properties/self"}}
    assert found["type.A"]["properties"]["self"] == {"$ref": root}
    assert found["type.A"]["properties"]["$ref"] == {"const": "#/$defs/A"}


def test_types_that_are_alike_are_one_and_others_are_not() -> None:
    a = {"properties": {"b": {"$ref": "#/$defs/B"}}}
    one, other, third = (
        {"$defs": {"A": a, "B": {"type": kind}, "C": {"type": "null"}}, "$ref": "#/$defs/A"}
        for kind in ("integer", "string", "integer")
    )
    found = placed(one, third)
    assert {name for name in found if name.startswith("type.")} == {"type.A", "type.B", "type.C"}
    of_a = {"type": "object", "$ref": "#/components/schemas/type.A"}
    assert found["command.x0.input"] == found["command.x1.input"] == of_a
    found = placed(one, other)
    assert {name for name in found if name.startswith("type.")} == {"type.C"}
    assert found["command.x0.input"]["$ref"] == "#/components/schemas/command.x0.input.A"
    of_b = {"$ref": "#/components/schemas/command.x1.input.B"}
    assert found["command.x1.input.A"] == {"properties": {"b": of_b}}  # alike, but not what it refers to
    assert found["command.x1.input.B"] == {"type": "string"}


async def test_the_input_of_a_workflow_that_says_nothing_is_an_object() -> None:
    spec = await shown(project(workflows={"open": {"steps": [STEP]}}))
    for name in ("workflow.open.request", "Workflow"):
        assert accepts(spec, name, {"workflow_id": "open", "input": {"a": 1}})
        assert accepts(spec, name, {"workflow_id": "open", "input": None})
        assert not accepts(spec, name, {"workflow_id": "open", "input": []})


# -- what the protocol page shows ------------------------------------------------------------------------

PAGE = DOCS / "protocol.md"
SPEC = document(EMPTY, OPERATIONS)
LINES = [
    pytest.param(line, "Envelope" if fence.info == "json envelopes" else "Frame", id=f"{fence.line} {number}")
    for fence in fences(PAGE)
    if fence.info in ("json frames", "json stream", "json envelopes")
    for number, line in enumerate(fence.body.splitlines())
    if '"keepalive"' not in line
]


@pytest.mark.parametrize(("line", "name"), LINES)
def test_it_describes_the_frames_of_the_protocol_page(line: str, name: str) -> None:
    frame = json.loads(line)
    validator(SPEC, name).validate(frame)
    known = SPEC["components"]["schemas"][name if name == "Envelope" else frame["status"].capitalize()]
    assert frame.keys() <= known["properties"].keys()


@pytest.mark.parametrize(("line", "name"), LINES[:20])
def test_a_frame_without_its_status_is_none(line: str, name: str) -> None:
    frame = json.loads(line)
    del frame["status"]
    assert not accepts(SPEC, name, frame)


@pytest.mark.parametrize(
    "fence", [pytest.param(f, id=f.info) for f in fences(PAGE) if f.info[:12] == "json answer "]
)
def test_it_describes_the_answers_of_the_protocol_page(fence: Any) -> None:
    _, _, method, path = fence.info.split()
    answer = json.loads(fence.body)
    shown = [item for (on, at), item in OPERATIONS.items() if on == method and _matches(at, path)]
    assert len(shown) == 1
    assert shown[0].answer is not None
    validator(SPEC, shown[0].answer).validate(answer)
    assert answer.keys() <= SPEC["components"]["schemas"][shown[0].answer]["properties"].keys()


def _matches(pattern: str, path: str) -> bool:
    parts, shown = pattern.split("/"), path.split("/")
    return len(parts) == len(shown) and all(p in ("{id}", s) for p, s in zip(parts, shown, strict=True))
