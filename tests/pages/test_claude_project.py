"""examples/text-2-text-claude runs as it stands, on a server that plays Anthropic, over real HTTP."""

from __future__ import annotations

import ast
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from behaviour.checks import until
from docs.pages import ROOT
from engines.upstreams.anthropic import NO_SAMPLING, AnthropicServer
from pages.served import fixture, serving

pytest.importorskip("anthropic", reason="needs the extra anthropic")
pytestmark = pytest.mark.anyio

PROJECT = ROOT / "examples" / "text-2-text-claude"
WAIT_S = 20.0


@asynccontextmanager
async def in_thread(context: Any) -> AsyncIterator[Any]:
    """Enter and leave a blocking context manager without holding the event loop."""
    entered = await anyio.to_thread.run_sync(context.__enter__)
    try:
        yield entered
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(context.__exit__, None, None, None)


@pytest.fixture
async def claude(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[AnthropicServer, httpx.AsyncClient]]:
    """The upstream, and a client of the project that uses it."""
    upstream = AnthropicServer()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(upstream.running())
        monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", upstream.key)
        served = await stack.enter_async_context(in_thread(serving(PROJECT)))
        client = httpx.AsyncClient(base_url=f"http://{served.http}", timeout=WAIT_S)
        yield upstream, await stack.enter_async_context(client)


async def execute(client: httpx.AsyncClient, command: str, **given: object) -> dict[str, Any]:
    """Call a command for one answer."""
    answer = await client.post("/v2/execute", json={"command": command, "input": given})
    return dict(answer.json())


def asking(prompt: str, **more: object) -> dict[str, Any]:
    """A request for a stream."""
    return {"json": {"command": "predict", "input": {"prompt": prompt, **more}, "is_stream": True}}


def test_its_code_is_the_guides() -> None:
    ours = {ast.dump(node) for node in ast.parse((PROJECT / "run.py").read_text()).body}
    guides = {ast.dump(node) for node in ast.parse(fixture("xumi_run.py.txt")).body}
    assert guides <= ours


async def test_it_streams_what_claude_says(claude: tuple[AnthropicServer, httpx.AsyncClient]) -> None:
    upstream, client = claude
    upstream.length = 3
    assert (await execute(client, "initialize"))["data"] == {"state": ["model"]}
    answer = await client.post("/v2/execute", **asking("river", max_tokens=50))
    frames = [json.loads(line) for line in answer.text.splitlines()]
    assert [frame["data"]["chunk"] for frame in frames[1:-1]] == ["river#0 ", "river#1 ", "river#2 ", ""]
    assert frames[-1]["status"] == "completed"
    asked = upstream.seen[-1].json
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == (
        "claude-3-5-sonnet-20240620",
        50,
        0.7,
    )
    assert asked["system"] == "You are a helpful AI assistant."


async def test_it_answers_at_once(claude: tuple[AnthropicServer, httpx.AsyncClient]) -> None:
    upstream, client = claude
    upstream.length = 3
    await execute(client, "initialize", model_name="claude-new")
    answered = await execute(client, "predict", prompt="owl", streaming=False)
    assert answered["data"]["text"] == "owl#0 owl#1 owl#2 "


async def test_a_model_without_a_temperature_is_asked_without(
    claude: tuple[AnthropicServer, httpx.AsyncClient],
) -> None:
    upstream, client = claude
    upstream.length, upstream.takes_temperature = 1, False
    await execute(client, "initialize", model_name="claude-new")
    for prompt in ("one", "two"):
        assert (await execute(client, "predict", prompt=prompt))["data"]["text"] == f"{prompt}#0 "
    assert ["temperature" in seen.json for seen in upstream.seen] == [True, False, False]
    assert upstream.seen[-1].headers["anthropic-version"] == NO_SAMPLING


@pytest.mark.parametrize("way", ["leaving", "cancelling"])
async def test_a_cancel_closes_the_connection_to_claude(
    claude: tuple[AnthropicServer, httpx.AsyncClient], way: str
) -> None:
    upstream, client = claude
    upstream.gate.hold(after=2)
    await execute(client, "initialize")
    with anyio.fail_after(WAIT_S):
        async with client.stream("POST", "/v2/execute", **asking("river")) as answer:
            lines = answer.aiter_lines()
            accepted = json.loads(await anext(lines))
            await anext(lines)
            await until(lambda: upstream.gate.waiting == 1, lambda: f"{upstream.gate.waiting} held back")
            assert upstream.working == 1
            if way == "cancelling":
                await client.post(f"/tasks/{accepted['task_id']}/cancel")
        await until(lambda: upstream.working == 0, lambda: f"{upstream.working} at work")
        await until(lambda: upstream.open_connections == 0, lambda: "a connection open")


async def test_a_stream_that_breaks_off_is_a_failure(
    claude: tuple[AnthropicServer, httpx.AsyncClient],
) -> None:
    upstream, client = claude
    upstream.faults.end_after = 2
    await execute(client, "initialize")
    answered = await client.post("/v2/execute", **asking("river"))
    assert json.loads(answered.text.splitlines()[-1])["status"] == "error"
