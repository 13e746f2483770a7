"""Commands as tools: the official SDK's client against our `/mcp`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from behaviour.keyring import ANNA, BEN, write_keys
from behaviour.served import hosted
from penstock import CommandError, Runtime
from penstock.protocol.dispatch import LOCAL
from penstock.runtime.app import App

pytest.importorskip("mcp", reason="the extra mcp is not installed")
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

pytestmark = pytest.mark.anyio


def project(seen: SimpleNamespace) -> Runtime:
    rt = Runtime()

    @rt.command("add")
    async def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    @rt.streaming_command("say")
    async def say(text: str, hang: bool = False) -> AsyncIterator[dict[str, Any]]:
        for word in text.split():
            if word == "fail":
                raise CommandError("as asked", "unavailable")
            yield {"chunk": word + " ", "finished": False}
        if hang:
            seen.hanging.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.cancelled.set()

    @rt.command("initialize")
    async def initialize() -> dict[str, int]:
        return {}

    return rt


@pytest.fixture
def seen() -> SimpleNamespace:
    return SimpleNamespace(hanging=asyncio.Event(), cancelled=asyncio.Event())


@asynccontextmanager
async def serving(app: App, **settings: object) -> AsyncIterator[str]:
    async with hosted(app, mcp=True, **settings) as (_, (host, port)):
        yield f"http://{host}:{port}/mcp"


@pytest.fixture
async def app(seen: SimpleNamespace) -> AsyncIterator[App]:
    async with App(project(seen)) as app:
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[Client]:
    async with serving(app) as url, Client(url) as client:
        yield client


async def test_commands_are_tools(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools.keys() == {"add", "say"}
    assert tools["add"].description == "Add two numbers."
    assert tools["add"].input_schema["properties"]["a"]["type"] == "integer"
    assert tools["add"].input_schema["required"] == ["a"]


async def test_an_answer(client: Client) -> None:
    result = await client.call_tool("add", {"a": 2})
    assert (result.is_error, result.structured_content, result.content[0].text) == (False, {"result": 3}, "3")


async def test_a_stream_tells_its_progress(client: Client) -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(items: float, total: float | None, message: str | None) -> None:
        told.append((items, message))

    result = await client.call_tool("say", {"text": "one two three"}, progress_callback=progress)
    assert result.content[0].text == "one two three "
    assert [item["chunk"] for item in result.structured_content["items"]] == ["one ", "two ", "three "]
    assert told[-1][0] == 3
    assert "".join(message or "" for _, message in told) == "one two three "


@pytest.mark.parametrize(
    ("tool", "given", "code", "items"),
    [
        ("add", {"a": "x"}, "invalid_argument", None),
        ("add", {}, "invalid_argument", None),
        ("say", {"text": "one fail"}, "unavailable", 1),
    ],
)
async def test_a_failure_is_a_result(
    client: Client, tool: str, given: dict[str, Any], code: str, items: int | None
) -> None:
    result = await client.call_tool(tool, given)
    assert result.is_error
    assert result.structured_content["code"] == code
    assert len(result.structured_content.get("items", ())) == (items or 0)


@pytest.mark.parametrize("tool", ["nothing", "initialize"])
async def test_there_are_no_other_tools(client: Client, tool: str) -> None:
    with pytest.raises(MCPError, match="there is no tool"):
        await client.call_tool(tool, {})


async def test_a_cancel_reaches_the_command(client: Client, seen: SimpleNamespace) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "say", {"text": "one", "hang": True})
            await seen.hanging.wait()
            group.cancel_scope.cancel()
        await seen.cancelled.wait()


async def test_a_client_that_goes_cancels_too(app: App, seen: SimpleNamespace) -> None:
    async with serving(app) as url:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    async with Client(url) as client:
                        await client.call_tool("say", {"text": "one", "hang": True})

                group.start_soon(ask)
                await seen.hanging.wait()
                group.cancel_scope.cancel()
            await seen.cancelled.wait()
    assert all(task.status != "streaming" for task in app.tasks(LOCAL))


async def test_it_is_there_only_if_asked_for(app: App) -> None:
    async with (
        hosted(app) as (_, (host, port)),
        httpx.AsyncClient(base_url=f"http://{host}:{port}") as client,
    ):
        assert (await client.post("/mcp", json={})).status_code == 404


async def test_it_needs_a_key_where_all_do_and_sessions_belong_to_theirs(app: App, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", ANNA, BEN)
    async with serving(app, auth_keys=keys) as url, httpx.AsyncClient() as stranger:
        assert (await stranger.post(url, json={})).status_code == 401
        async with (
            httpx2.AsyncClient(headers=ANNA.headers) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 2}
        assert {task.command for task in app.tasks(ANNA.caller)} == {"add"}
        assert app.tasks(BEN.caller) == []
