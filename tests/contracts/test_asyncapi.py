"""The AsyncAPI document: valid to the official parser, whole, and true of every message that is shown."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import anyio
import httpx
import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel, Field

from docs.pages import DOCS, codes, fences, table
from docs.test_protocol_live import Project
from penstock import App, Runtime
from penstock.protocol.dispatch import Description
from penstock.protocol.requests import Message
from penstock.runtime.manifest import Manifest
from penstock.server.asgi import SOCKETS, Application
from penstock.server.asyncapi.document import async_document
from penstock.server.asyncapi.messages import draft_7

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent
PAGE = DOCS / "protocol.md"
GOLDEN = FOLDER.parent / "protocol"
EMPTY = Description(name="empty", version="1", default_command="predict", commands={})
WORST = 1  # severities: 0 is an error, 1 a warning; what is below is advice
TYPES = [kind.__struct_config__.tag for kind in get_args(Message)]
Spec = dict[str, Any]


class Circle(BaseModel):
    kind: Literal["circle"]
    discriminator: str = "a name like any other"


class Square(BaseModel):
    kind: Literal["square"]
    side: float


def shapes() -> Runtime:
    """Return a project with schemas of all kinds: references, tuples, choices by a field."""
    rt = Runtime(Manifest(name="shapes", version="1.0.0", default_command="draw"))

    @rt.streaming_command("draw")
    async def draw(
        shape: Annotated[Circle | Square, Field(discriminator="kind")], at: tuple[int, str] = (0, "")
    ) -> AsyncIterator[Circle]:
        """Draw a shape."""
        yield shape

    @rt.command("size")
    async def size(numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    return rt


async def shown(runtime: Runtime, **headers: str) -> Spec:
    async with App(runtime) as app:
        application = Application(app)
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://test:8000") as http:
            reply = await http.get("/asyncapi.json", headers=headers)
        await application.aclose()
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    return dict(reply.json())


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def page(anyio_backend: object) -> Spec:
    """What the protocol page's project says of itself."""
    return await shown(Project().runtime)


def payload(spec: Spec, name: str) -> Draft7Validator:
    """Return what checks a message."""
    schema = spec["components"]["messages"][name]["payload"]
    return Draft7Validator({"allOf": [schema], "components": spec["components"]})


def fitting(spec: Spec, message: object, *names: str) -> list[str]:
    """Return the messages that this is one of, of all or of these."""
    tried = names or spec["components"]["messages"]
    return [name for name in tried if payload(spec, name).is_valid(message)]


def sent(spec: Spec) -> list[str]:
    """Return the messages that clients send."""
    return [of["messages"][0]["$ref"].rpartition("/")[2] for of in spec["operations"].values()]


def answers(spec: Spec, operation: str) -> list[str]:
    return [each["$ref"].rpartition("/")[2] for each in spec["operations"][operation]["reply"]["messages"]]


# -- it is AsyncAPI --------------------------------------------------------------------------------------


def parsed(*specs: Spec) -> list[Spec]:
    """Return what the official parser finds in each."""
    command = ["node", str(FOLDER / "asyncapi.mjs")]
    ended = subprocess.run(command, input=json.dumps(specs), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
@pytest.mark.skipif(not (FOLDER / "node_modules").exists(), reason="needs npm: see the Makefile")
async def test_the_official_parser_takes_it(page: Spec) -> None:
    keys = async_document(EMPTY, SOCKETS, host="gpu.example", is_secure=True, needs_key=True)
    specs = [page, await shown(shapes()), async_document(EMPTY, SOCKETS), keys]
    broken = {**page, "channels": {"x": {"adress": 3}}}
    *found, of_broken = await anyio.to_thread.run_sync(parsed, *specs, broken)
    for spec, each in zip(specs, found, strict=True):
        assert [fault for fault in each["diagnostics"] if fault[0] <= WORST] == []
        assert each["channels"] == list(SOCKETS)
        read = {
            operation["id"]: (operation["messages"], operation["replies"]) for operation in each["operations"]
        }
        assert read == {name: ([name], answers(spec, name)) for name in spec["operations"]}
    assert [fault for fault in of_broken["diagnostics"] if fault[0] <= WORST]


async def test_every_schema_is_one(page: Spec) -> None:
    for spec in (page, await shown(shapes()), async_document(EMPTY, SOCKETS)):
        for name in spec["components"]["messages"]:
            Draft7Validator.check_schema(payload(spec, name).schema)
        for schema in spec["components"]["schemas"].values():
            Draft7Validator.check_schema(schema)
        assert "prefixItems" not in json.dumps(spec)


async def test_every_reference_leads_somewhere(page: Spec) -> None:
    for spec in (page, await shown(shapes())):
        for target in _references(spec):
            found: Any = spec
            for part in target.removeprefix("#/").split("/"):
                assert part in found, target
                found = found[part]


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [each for item in value for each in _references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return [*own, *(each for item in value.values() for each in _references(item))]


def test_where_keys_are_needed_it_says_so() -> None:
    spec = async_document(EMPTY, SOCKETS, host="gpu.example", is_secure=True, needs_key=True)
    assert spec["servers"]["here"]["host"] == "gpu.example"
    assert spec["servers"]["here"]["protocol"] == "wss"
    named = [each["$ref"].rpartition("/")[2] for each in spec["servers"]["here"]["security"]]
    assert named == list(spec["components"]["securitySchemes"])
    assert "securitySchemes" not in async_document(EMPTY, SOCKETS)["components"]


# -- it is whole -----------------------------------------------------------------------------------------


async def test_each_command_and_workflow_is_an_operation_with_its_own_schemas() -> None:
    spec = await shown(shapes())
    assert {"task", "command.draw", "command.size"} < spec["operations"].keys()
    draw = {"type": "command", "command": "draw", "input": {"shape": {"kind": "square", "side": 1}}}
    assert fitting(spec, draw) == ["command.draw"]
    assert fitting(spec, {**draw, "input": {"shape": {"kind": "circle", "discriminator": "x"}}})
    for wrong in ({"kind": "square"}, {"kind": "line"}, {"kind": "circle", "discriminator": 3}):
        assert fitting(spec, {**draw, "input": {"shape": wrong}}) == []
    given = draw["input"]
    assert fitting(spec, {**draw, "input": {**given, "at": [1, "b"]}}) == ["command.draw"]
    assert fitting(spec, {**draw, "input": {**given, "at": ["b", 1]}}) == []
    item = {"type": "task", "status": "streaming", "timestamp": 1.0, "task_id": "a", "seq": 1}
    item |= {"version": "v2", "command": "draw", "data": {"kind": "circle", "discriminator": "x"}}
    assert payload(spec, "command.draw.streaming").is_valid(item)
    assert not payload(spec, "command.draw.streaming").is_valid({**item, "data": {"kind": "square"}})
    assert "command.draw.streaming" in answers(spec, "command.draw")
    assert "command.size.answer" in answers(spec, "command.size")
    assert {"default.streaming", "default.answer"} < set(answers(spec, "task"))


def test_while_nothing_is_loaded_any_command_will_do() -> None:
    spec = async_document(EMPTY, SOCKETS)
    assert fitting(spec, {"type": "command", "command": "any", "input": {"x": 1}}) == ["command"]
    assert fitting(spec, {"type": "command", "input": {}}) == []


def test_every_message_of_the_protocol_is_in_it() -> None:
    spec = async_document(EMPTY, SOCKETS)
    assert sorted(sent(spec)) == sorted(TYPES)
    assert [channel["address"] for channel in spec["channels"].values()] == list(SOCKETS)
    kinds = {codes(row["out"])[0] for row in table(PAGE, "out", "fields")}
    told = {name.partition(".")[0] for name in spec["components"]["messages"]} - {"task", "command"}
    assert kinds <= told


def test_a_message_has_the_fields_that_the_page_lists() -> None:
    spec = async_document(EMPTY, SOCKETS)
    for row in table(PAGE, "in", "fields"):
        name = codes(row["in"])[0]
        due = {field for field in codes(row["fields"]) if not field.startswith("/") and field != "-1"}
        assert due <= _properties(spec, spec["components"]["messages"][name]["payload"]), name


def _properties(spec: Spec, schema: Any) -> set[str]:
    """Return the names that a schema has for what stands in an object."""
    if "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = set(schema.get("properties", {}))
    return found.union(*(_properties(spec, each) for each in schema.get("allOf", ())))


# -- it is true of what is shown -------------------------------------------------------------------------


def samples(*kinds: str) -> list[Any]:
    return [
        pytest.param(line, id=f"{fence.line}-{number}")
        for fence in fences(PAGE)
        if fence.info in kinds
        for number, line in enumerate(fence.body.splitlines())
        if '"keepalive"' not in line  # an HTTP stream's
    ]


@pytest.mark.parametrize("line", samples("json to-server"))
def test_what_the_page_has_clients_send_is_in_it(page: Spec, line: str) -> None:
    assert len(fitting(page, json.loads(line), *sent(page))) == 1


@pytest.mark.parametrize(
    "message", json.loads((GOLDEN / "golden_requests.json").read_text())["messages"], ids=lambda m: m["type"]
)
def test_what_clients_of_any_release_send_is_in_it(page: Spec, message: Spec) -> None:
    assert len(fitting(page, message, *sent(page))) == 1


@pytest.mark.parametrize("line", samples("json to-client", "json frames", "json stream", "json envelopes"))
def test_what_the_page_has_servers_send_is_in_it(page: Spec, line: str) -> None:
    names = page["components"]["messages"].keys() - set(sent(page))
    message = json.loads(line)
    assert fitting(page, message, *names)
    del message["type"]
    assert fitting(page, message, *names) == []


@pytest.mark.parametrize(
    "file", sorted((GOLDEN / "golden").glob("*/*.json")), ids=lambda f: f"{f.parent.name}-{f.stem}"
)
def test_what_servers_of_any_release_send_is_in_it(page: Spec, file: Path) -> None:
    names = page["components"]["messages"].keys() - set(sent(page))
    for line in file.read_text().splitlines():
        assert fitting(page, json.loads(line), *names)


# -- schemas of another draft ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "due"),
    [
        ({"prefixItems": [{"type": "string"}]}, {"items": [{"type": "string"}]}),
        ({"prefixItems": [True], "items": False}, {"items": [True], "additionalItems": False}),
        ({"oneOf": [], "discriminator": {"propertyName": "a"}}, {"oneOf": []}),
        (
            {"properties": {"discriminator": {"prefixItems": []}}},
            {"properties": {"discriminator": {"items": []}}},
        ),
        ({"default": {"prefixItems": 1}}, {"default": {"prefixItems": 1}}),
        ({"properties": {"prefixItems": {"const": [{"discriminator": {}}]}}},) * 2,
    ],
)
def test_a_schema_is_told_in_draft_7(schema: Any, due: Any) -> None:
    assert draft_7(schema) == due
