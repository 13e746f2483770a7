"""`POST /v2/workflow`: workflows over HTTP, through the raw ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from penstock.errors import CommandError
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime
from penstock.server.asgi import Application

pytestmark = pytest.mark.anyio

WORKFLOWS = {
    "story_then_title": {
        "description": "A story, then its title",
        "input_schema": {
            "type": "object",
            "properties": {"prompt": {"type": "string"}, "want_tags": {"type": "boolean", "default": False}},
            "required": ["prompt"],
        },
        "steps": [
            {"id": "story", "command": "predict", "input": {"prompt": "${input.prompt}"}},
            {
                "parallel": [
                    {"id": "title", "command": "title", "input": {"text": "${steps.story.text}"}},
                    {
                        "id": "tags",
                        "command": "title",
                        "input": {"text": "tags"},
                        "when": "${input.want_tags}",
                    },
                ]
            },
        ],
    },
    "just_the_title": {
        "output": "${steps.title}",
        "steps": [{"id": "title", "command": "title", "input": {"text": "${input.text}"}}],
    },
    "broken": {"steps": [{"id": "a", "command": "fail"}]},
    "endless": {"steps": [{"id": "a", "command": "hang"}]},
}


class Kit:
    """A client of the application, and what the commands tell."""

    def __init__(self, app: App, http: httpx.AsyncClient) -> None:
        self.app = app
        self.http = http
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()

    async def run(self, workflow_id: str, given: Any = None, **more: Any) -> httpx.Response:
        body = {"workflow_id": workflow_id, "input": given or {}, **more}
        return await self.http.post("/v2/workflow", json=body)


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    runtime = Runtime(Manifest.model_validate({"name": "shop", "workflows": WORKFLOWS}))
    app = App(runtime)
    application = Application(app)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        kit = Kit(app, http)

        @runtime.streaming_command("predict")
        async def predict(prompt: str) -> AsyncIterator[dict[str, Any]]:
            for end in range(1, len(prompt) + 1):
                yield {"text": prompt[:end], "chunk": prompt[end - 1]}

        @runtime.command("title")
        async def title(text: str) -> dict[str, str]:
            return {"title": text.title()}

        @runtime.command("fail")
        async def fail() -> None:
            raise CommandError("no paper")

        @runtime.command("hang")
        async def hang() -> None:
            kit.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                kit.stopped.set()

        async with app:
            yield kit
        await application.aclose()


async def test_an_answer_has_every_step(kit: Kit) -> None:
    reply = await kit.run("story_then_title", {"prompt": "a fox", "want_tags": True}, task_id="mine")
    body = reply.json()
    assert (reply.status_code, body["status"], body["workflow_id"]) == (200, "completed", "story_then_title")
    assert (body["task_id"], body["version"], "command" in body) == ("mine", "v2", False)
    story = {"text": "a fox", "chunk": "x"}
    assert body["data"] == {"steps": {"story": story, "title": {"title": "A Fox"}, "tags": {"title": "Tags"}}}


async def test_a_stream_has_every_item_and_then_the_answer(kit: Kit) -> None:
    reply = await kit.run("story_then_title", {"prompt": "ab"}, is_stream=True)
    assert reply.headers["content-type"] == "application/x-ndjson"
    frames = [json.loads(line) for line in reply.text.splitlines()]
    assert [(frame["status"], frame.get("step")) for frame in frames] == [
        ("accepted", None),
        ("streaming", "story"),
        ("streaming", "story"),
        ("streaming", "title"),
        ("completed", None),
    ]
    assert [frame["seq"] for frame in frames] == list(range(5))
    assert {frame["workflow_id"] for frame in frames} == {"story_then_title"}
    answer = {"story": {"text": "ab", "chunk": "b"}, "title": {"title": "Ab"}, "tags": None}
    assert frames[-1]["data"] == {"steps": answer}


async def test_server_sent_events(kit: Kit) -> None:
    body = {"workflow_id": "just_the_title", "input": {"text": "x"}}
    reply = await kit.http.post("/v2/workflow", json=body, headers={"accept": "text/event-stream"})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert [line for line in reply.text.splitlines() if line.startswith("id")] == ["id: 0", "id: 1", "id: 2"]


async def test_an_output_of_its_own(kit: Kit) -> None:
    reply = await kit.run("just_the_title", {"text": "fox"})
    assert reply.json()["data"] == {"title": "Fox"}


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"input": {}}, 400, "invalid_argument", "workflow_id: field required"),
        ({"workflow_id": ""}, 400, "invalid_argument", "workflow_id: field required"),
        ({"workflow_id": 3}, 400, "invalid_argument", "the body is not a request"),
        ({"workflow_id": "brokne"}, 404, "not_found", "no workflow 'brokne'; did you mean broken?"),
        ({"workflow_id": "broken", "input": []}, 400, "invalid_argument", "input: must be an object"),
        ({"workflow_id": "story_then_title"}, 400, "invalid_argument", "prompt: field required"),
        (
            {"workflow_id": "story_then_title", "input": {"prompt": 3}},
            400,
            "invalid_argument",
            "prompt: 3 is not",
        ),
        ({"workflow_id": "broken", "task_id": "a b"}, 400, "invalid_argument", "task_id is 1 to 128"),
        ({"workflow_id": "broken", "timeout": 0}, 400, "invalid_argument", "timeout is more than 0"),
        ({"workflow_id": "broken", "on_disconnect": "stay"}, 400, "invalid_argument", "on_disconnect is"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals(kit: Kit, body: Any, status: int, code: str, says: str, stream: bool) -> None:
    reply = await kit.http.post("/v2/workflow", json={"is_stream": stream, **body})
    told = reply.json()
    assert (reply.status_code, told["code"], told["status"]) == (status, code, "error")
    assert told["error"].startswith(says)


async def test_other_methods_are_refused(kit: Kit) -> None:
    reply = await kit.http.get("/v2/workflow")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


async def test_a_step_that_fails(kit: Kit) -> None:
    reply = await kit.run("broken")
    told = reply.json()
    assert (reply.status_code, told["code"], told["error"]) == (500, "command_failed", "step a: no paper")
    assert told["details"] == [{"step": "a"}]
    streamed = await kit.run("broken", is_stream=True)
    assert (streamed.status_code, json.loads(streamed.text.splitlines()[-1])["status"]) == (200, "error")


async def test_a_cancel_stops_the_step_too(kit: Kit) -> None:
    replies: list[httpx.Response] = []

    async def call() -> None:
        replies.append(await kit.run("endless", task_id="t"))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await kit.started.wait()
            listed = (await kit.http.get("/tasks")).json()["tasks"]
            assert [(task["task_id"], task["workflow_id"]) for task in listed] == [("t", "endless")]
            assert "command" not in listed[0]
            cancelled = await kit.http.delete("/tasks/t")
            assert cancelled.json()["outcome"] == "cancelled"
        await kit.stopped.wait()
    assert (replies[0].status_code, replies[0].json()["reason"]) == (499, "caller")


async def test_a_stream_can_be_read_again(kit: Kit) -> None:
    streamed = await kit.run("story_then_title", {"prompt": "ab"}, is_stream=True, task_id="t")
    again = await kit.http.get("/tasks/t/events?after=1")
    assert again.text.splitlines() == streamed.text.splitlines()[2:]


async def test_what_is_served(kit: Kit) -> None:
    shown = (await kit.http.get("/v2/commands")).json()["workflows"]
    assert list(shown) == list(WORKFLOWS)
    assert shown["broken"] == {"input_schema": {}, "steps": [{"id": "a", "command": "fail"}]}
    story = shown["story_then_title"]
    assert story["description"] == "A story, then its title"
    assert story["input_schema"]["required"] == ["prompt"]
    beside = [{"id": "title", "command": "title"}, {"id": "tags", "command": "title"}]
    assert story["steps"] == [{"id": "story", "command": "predict"}, {"parallel": beside}]
