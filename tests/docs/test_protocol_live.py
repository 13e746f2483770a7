"""docs/protocol.md shows answers as a live server gives them: the same keys in the same order, the same kinds
of values."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest

from docs.pages import DOCS, Fence, codes, fences, table
from penstock import App, CommandError, Runtime, current_call
from penstock.runtime.manifest import Manifest
from penstock.server.asgi import SOCKETS, Application
from penstock.server.websocket import Socket

pytestmark = pytest.mark.anyio

PAGE = DOCS / "protocol.md"
ANSWERS = [
    pytest.param(fence, id=fence.info.removeprefix("json answer "))
    for fence in fences(PAGE)
    if fence.info.startswith("json answer ")
]
MANIFEST = {
    "name": "storyteller",
    "version": "1.0.0",
    "workflows": {
        "story_then_title": {
            "description": "Tells a story, then finds a title for it.",
            "steps": [
                {"id": "story", "command": "predict", "input": {"prompt": "${input.prompt}"}},
                {"id": "title", "command": "predict", "input": {"prompt": "Title for: ${steps.story.text}"}},
            ],
        }
    },
}


HIDDEN = ("fail", "hold", "sum")  # commands that calls on the page end with, and that it does not list


class Project:
    """The page's project; ``holding`` is told of each call of `hold`."""

    def __init__(self) -> None:
        self.holding: asyncio.Queue[str] = asyncio.Queue()
        self.runtime = Runtime(Manifest.model_validate(MANIFEST))
        self.runtime.streaming_command("predict")(predict)
        self.runtime.command("add")(add)
        self.runtime.command("fail")(fail)
        self.runtime.command("sum")(add_up)
        self.runtime.streaming_command("hold")(self.hold)

    async def hold(self) -> AsyncIterator[int]:
        yield 1
        self.holding.put_nowait(current_call().task_id)
        await asyncio.Event().wait()


async def predict(prompt: str, max_tokens: int = 256):  # type: ignore[no-untyped-def]
    """Answer a prompt piece by piece."""
    yield {"text": prompt, "chunk": "", "finished": True}


async def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


async def fail() -> None:
    raise CommandError("the model is out of ideas")


async def add_up(numbers: AsyncIterator[int]) -> int:
    return sum([number async for number in numbers])


@dataclass
class Caller:
    """Somebody who calls the application without a socket."""

    http: httpx.AsyncClient
    project: Project

    async def ask(self, method: str, path: str) -> Any:
        return (await self.http.request(method, path)).json()

    async def run(self, command: str, task_id: str, **body: Any) -> None:
        await self.http.post("/v2/execute", json={"command": command, "task_id": task_id, **body})


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    project = Project()
    async with App(project.runtime) as app:
        application = Application(app)
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield Caller(http, project)
        await application.aclose()


@pytest.mark.parametrize("fence", ANSWERS)
async def test_an_answer_is_shaped_as_the_server_gives_it(caller: Caller, fence: Fence) -> None:
    _, _, method, path = fence.info.split()
    with anyio.fail_after(5):
        await _prepare(caller, path)
        async with _held(caller, *(("running",) if "running" in path else ())):
            given = await caller.ask(method, path)
    for name in HIDDEN if "commands" in given else ():
        del given["commands"][name]
    assert _shape(given) == _shape(json.loads(fence.body))


async def _prepare(caller: Caller, path: str) -> None:
    """Have the calls run that an answer tells of."""
    if path.startswith("/tasks"):
        await caller.run("add", "done", input={"a": 1, "b": 2})
    if path == "/tasks/failed":
        await caller.run("fail", "failed")
    if path == "/tasks/cut":
        async with _held(caller, "cut"):
            pass


@asynccontextmanager
async def _held(caller: Caller, *names: str) -> AsyncIterator[None]:
    """Have calls in flight while the block lasts."""
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(caller.run, "hold", name)
            await caller.project.holding.get()
        yield
        for name in names:
            await caller.ask("DELETE", f"/tasks/{name}")


def _shape(value: Any) -> Any:
    """Return a value with its keys in order, numbers and ids as such, and other text as it is."""
    if isinstance(value, dict):
        return [(key, _shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [_shape(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return "number"
    return "id" if len(value) == 32 and value.isalnum() else value


async def test_every_route_has_its_row_and_no_other() -> None:
    rows = {(row["method"], codes(row["path"])[0]) for row in table(PAGE, "method", "path")}
    async with App(Project().runtime) as app:
        application = Application(app, exposition=lambda _: ("text/plain", b""))
        routes = {(method, route.path) for route in application.routes for method in route.handlers}
        await application.aclose()
    assert rows == routes | {("WebSocket", path) for path in SOCKETS}


async def test_every_route_that_answers_json_is_shown() -> None:
    shown = {tuple(param.values[0].info.split()[2:]) for param in ANSWERS}
    as_pattern = {(method, path.replace("done", "{id}").replace("running", "{id}")) for method, path in shown}
    rows = {(row["method"], codes(row["path"])[0]) for row in table(PAGE, "method", "path")}
    others = {path for method, path in rows - as_pattern if method != "WebSocket"}
    others = {path for path in others if not path.startswith("/v1/")}  # on a page of their own
    runs = {"/predict", "/task", "/v2/execute", "/v2/workflow"}
    kv = {"/v2/kv", "/v2/kv/events"}  # so are these
    named = {"/v2/commands/{id}", "/v2/workflows/{id}"}
    documents = {"/openapi.json", "/asyncapi.json", "/", "/playground/{file}", "/docs", "/docs/{file}"}
    page = {"/", "/playground/{file}"}
    assert others == {*runs, *named, *kv, *documents, *page, "/tasks/{id}/events", "/metrics"}


# -- WebSocket -------------------------------------------------------------------------------------------


class Wire:
    """The ASGI ends of one WebSocket."""

    def __init__(self) -> None:
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.receive, self.send = self._in.get, self._out.put
        self._in.put_nowait({"type": "websocket.connect"})

    def say(self, **message: Any) -> None:
        self._in.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def leave(self) -> None:
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def hear(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type; what comes before it is passed over."""
        while True:
            event = await self._out.get()
            heard: dict[str, Any] = json.loads(event.get("text", "{}"))
            if heard.get("type") == kind:
                return heard


async def test_messages_that_are_no_frames_are_as_shown() -> None:
    samples = [
        json.loads(line)
        for fence in fences(PAGE)
        if fence.info == "json to-client"
        for line in fence.body.splitlines()
    ]
    heard = []
    async with App(Project().runtime) as app:
        application, wire = Application(app), Wire()
        scope = {"type": "websocket", "path": "/ws", "headers": []}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: application(scope, wire.receive, wire.send))
            with anyio.fail_after(5):
                for sample in samples:
                    heard.append(await _provoke(wire, sample))
                wire.leave()
        await application.aclose()
    assert [_shape(message) for message in heard] == [_shape(sample) for sample in samples]
    told = set(re.findall(r'_tell\("(\w+)"', inspect.getsource(Socket)))
    assert {codes(row["out"])[0] for row in table(PAGE, "out", "fields")} == told
    assert {sample["type"] for sample in samples} == told
    for row in table(PAGE, "out", "fields"):
        fields = [list(s)[1:] for s in samples if f"`{s['type']}`" == row["out"]]
        assert codes(row["fields"]) == fields[0]


async def _provoke(wire: Wire, sample: dict[str, Any]) -> dict[str, Any]:
    """Have the server say what is shown."""
    kind, task_id = sample["type"], sample.get("task_id", "")
    if sample.get("status") == "cancelled":
        hold = {"command": "hold", "is_stream": True, "on_disconnect": "continue"}
        wire.say(type="command", task_id=task_id, **hold)
        wire.say(type="detach", task_id=task_id)
        await wire.hear("detach")
    elif sample.get("status") == "already_finished":
        wire.say(type="command", task_id=task_id, command="add", input={"a": 1, "b": 2})
        await wire.hear("task")
    behind_the_end = {"after": 1} if kind == "resume" else {}
    wire.say(type="ping" if kind == "pong" else kind, task_id=task_id, **behind_the_end)
    return await wire.hear(kind)
