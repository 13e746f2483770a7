"""Workflows: over a gateway they are what they are anywhere, each step a call on a runner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from behaviour.checks import happened
from behaviour.connect import Refused
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import CommandError, Runtime
from penstock.errors import ErrorCode
from penstock.runtime.manifest import Manifest

pytestmark = pytest.mark.anyio

WORKFLOWS: dict[str, Any] = {
    "tale": {
        "description": "A story, then its title",
        "input_schema": {
            "type": "object",
            "properties": {
                "prompt": {"type": "string", "pattern": "^[A-Z]"},
                "tags": {"type": "boolean", "default": False},
            },
            "required": ["prompt"],
        },
        "output": {"title": "${steps.title}", "of": "${steps.story.text}"},
        "steps": [
            {"id": "story", "command": "write", "input": {"prompt": "${input.prompt}"}},
            {
                "parallel": [
                    {"id": "title", "command": "title", "input": {"text": "${steps.story.text}"}},
                    {"id": "tags", "command": "title", "input": {"text": "x"}, "when": "${input.tags}"},
                ]
            },
        ],
    },
    "broken": {"steps": [{"id": "first", "command": "fail"}]},
    "wrong": {"steps": [{"id": "first", "command": "title", "input": {"text": "${input.text}"}}]},
    "endless": {"steps": [{"id": "first", "command": "hang"}]},
}


class Project:
    """Commands and workflows; what hangs tells when it begins and ends."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.runtime = rt = Runtime(Manifest(name="shop", workflows=WORKFLOWS))

        @rt.streaming_command("write")
        async def write(prompt: str):
            for text in (prompt, f"{prompt}, and then"):
                yield {"text": text}

        @rt.command("title")
        def title(text: str) -> str:
            return text.upper()

        @rt.command("fail")
        def fail() -> None:
            raise CommandError("out of ink", ErrorCode.RESOURCE_EXHAUSTED)

        @rt.command("hang")
        async def hang() -> None:
            self.began.set()
            try:
                await asyncio.sleep(600)
            finally:
                self.ended.set()


async def test_a_workflow_runs_its_steps_and_answers(connect: Connect) -> None:
    async with connect(Project().runtime) as way:
        call = await way.open("", {"prompt": "Once"}, workflow_id="tale")
        seen = await way.watch(call)
        frames = await seen.frames()
        items = [frame for frame in frames if frame["status"] == "streaming"]
        assert [item["step"] for item in items] == ["story", "story", "title"]
        story = [{"text": "Once"}, {"text": "Once, and then"}]
        assert [item["data"] for item in items] == [*story, "ONCE, AND THEN"]
        assert frames[-1]["status"] == "completed"
        assert frames[-1]["data"] == {"title": "ONCE, AND THEN", "of": "Once, and then"}
        await seen.aclose()


@pytest.mark.parametrize(
    ("name", "given", "code", "said"),
    [
        ("tale", {}, "invalid_argument", "prompt: field required"),
        ("tale", {"prompt": "once"}, "invalid_argument", "prompt: 'once' does not match '^[A-Z]'"),
        ("tael", {"prompt": "Once"}, "not_found", "no workflow 'tael'; did you mean tale?"),
    ],
)
async def test_what_a_workflow_does_not_take_is_refused(
    connect: Connect, name: str, given: dict[str, Any], code: str, said: str
) -> None:
    async with connect(Project().runtime) as way:
        with pytest.raises(Refused) as refused:
            await way.open("", given, workflow_id=name)
        assert (refused.value.code, refused.value.error) == (code, said)


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [("broken", {}, "resource_exhausted"), ("wrong", {"text": 3}, "invalid_argument")],
)
async def test_a_step_that_fails_is_named(
    connect: Connect, name: str, given: dict[str, Any], code: str
) -> None:
    async with connect(Project().runtime) as way:
        last = await way.ask("", given, workflow_id=name)
        assert (last["status"], last["code"]) == ("error", code)
        assert last["error"].startswith("step first: ")
        assert last["details"][0] == {"step": "first"}


@promise("P5")
async def test_a_cancelled_workflow_stops_the_code_of_its_step(connect: Connect) -> None:
    project = Project()
    async with connect(project.runtime) as way:
        call = await way.open("", workflow_id="endless")
        await happened(project.began)
        assert await call.cancel() == "cancelled"
        assert (await call.last())["status"] == "cancelled"
        await happened(project.ended)


async def test_workflows_are_described(connect_http: Connect) -> None:
    async with connect_http(Project().runtime) as way:
        described = await way.dispatcher.describe()
        assert list(described.workflows) == list(WORKFLOWS)
        assert described.workflows["tale"].input_schema == WORKFLOWS["tale"]["input_schema"]
