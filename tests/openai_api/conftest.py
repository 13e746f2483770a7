"""A server with models of all kinds, and the vendor's own clients of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from openai import AsyncOpenAI

from behaviour.keyring import ANNA, write_keys
from behaviour.served import hosted
from docs.pages import DOCS, fences
from penstock import CommandError, Runtime, current_call
from penstock.protocol.events import EngineReport, EventUsage
from penstock.runtime.app import App

Json = dict[str, Any]


def project(seen: SimpleNamespace) -> Runtime:
    rt = Runtime()

    @rt.streaming_command("talk", openai="chat", model="talker")
    async def talk(
        messages: list[dict[str, Any]],
        max_tokens: int = 100,
        seed: int | None = None,
        stop: str | list[str] | None = None,
    ) -> AsyncIterator[str]:
        """Say the last message again, word by word."""
        seen.messages, seen.seeds = messages, [*seen.seeds, seed]
        words = messages[-1]["content"].split()
        for number, word in enumerate(words[:max_tokens]):
            if word == "fail":
                raise CommandError("as asked", "unavailable")
            if word in (stop or ()):
                break
            if word == "hang":
                await seen.hang()
            yield (" " if number else "") + word
        usage = EventUsage(prompt_tokens=7, completion_tokens=len(words[:max_tokens]), cached_tokens=2)
        current_call().report(
            EngineReport(usage=usage, finish_reason="length" if len(words) > max_tokens else "stop")
        )

    @rt.streaming_command("act", openai="chat")
    async def act(messages: list[Json], tools: list[Json]) -> AsyncIterator[Json]:
        """Call the first tool, in three pieces, after a thought."""
        name = tools[0]["function"]["name"]
        yield {"chunk": "", "reasoning": "let me see"}
        call = {"index": 0, "id": "t1", "type": "function", "function": {"name": name}}
        yield {"chunk": "", "tool_calls": [call]}
        for piece in ('{"a"', ": 1}"):
            yield {"chunk": "", "tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

    @rt.streaming_command("shape", openai="chat")
    async def shape(messages: list[Json], response_format: Json) -> AsyncIterator[str]:
        """Answer an object of the form that is asked for."""
        seen.response_format = response_format
        yield '{"name": '
        yield '"fox"}'

    @rt.command("ask", openai="chat")
    async def ask(prompt: str, system_prompt: str = "") -> str:
        """Answer one question, all at once."""
        return f"{system_prompt}|{prompt}"

    @rt.streaming_command("go_on", openai="completion")
    async def go_on(prompt: str) -> AsyncIterator[str]:
        for letter in reversed(prompt):
            yield letter

    @rt.command("embed", openai="embeddings")
    async def embed(input: list[str]) -> list[list[float]]:
        return [[float(len(text)), 0.25] for text in input]

    @rt.command("full", openai="chat", concurrency=1, queue=0)
    async def full(messages: list[Json]) -> str:
        """Hold the only place for good."""
        await seen.hang()
        return ""

    @rt.command("relay", openai="transport", model="relayed")
    async def relay(msg: str) -> str:
        """Answer as a server of OpenAI's API would."""
        asked = json.loads(msg)
        seen.relayed = asked
        if asked.get("user") == "fail":
            return json.dumps({"code": 21313, "description": "Model predict failed", "details": "as asked"})
        choice = {"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
        return json.dumps(
            {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        )

    @rt.streaming_command("relay_stream", openai="transport", model="relayed")
    async def relay_stream(msg: str) -> AsyncIterator[str]:
        does = json.loads(msg).get("user")
        for word in ("one", " two"):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            yield json.dumps({**chunk, "choices": [choice]}, indent=1)
        if does == "hang":
            await seen.hang()
        if does == "fail":
            yield json.dumps({"code": 21313, "description": "Model predict failed"})

    @rt.command("wrong", openai="embeddings")
    async def wrong(input: list[str]) -> str:
        return "no vectors"

    return rt


def shown(url: str, info: str) -> str:
    """Return what docs/openai.md shows behind a fence, asked of a model that is here."""
    [code] = (fence.body for fence in fences(DOCS / "openai.md") if fence.info == info)
    return code.replace("http://127.0.0.1:8000", url).replace("scripted", "talker")


@pytest.fixture
def seen() -> SimpleNamespace:
    """What the models have seen, and how those that hang are watched."""
    seen = SimpleNamespace(messages=None, seeds=[], hanging=asyncio.Event(), cancelled=asyncio.Event())

    async def hang() -> None:
        seen.hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.cancelled.set()

    seen.hang = hang
    return seen


@pytest.fixture
async def url(seen: SimpleNamespace) -> AsyncIterator[str]:
    """Where the models are served."""
    async with App(project(seen)) as app, hosted(app) as (_, (host, port)):
        yield f"http://{host}:{port}"


@pytest.fixture
async def lively_url(seen: SimpleNamespace) -> AsyncIterator[str]:
    """Where they are served by a server that is never silent for long."""
    async with App(project(seen)) as app, hosted(app, silent_s=0.05) as (_, (host, port)):
        yield f"http://{host}:{port}"


@pytest.fixture
async def locked_url(seen: SimpleNamespace, tmp_path: Path) -> AsyncIterator[str]:
    """Where they are served to those with a key."""
    keys = write_keys(tmp_path / "keys.txt", ANNA)
    async with App(project(seen)) as app, hosted(app, auth_keys=keys) as (_, (host, port)):
        yield f"http://{host}:{port}"


@pytest.fixture
async def other_clients(url: str, locked_url: str, seen: SimpleNamespace) -> AsyncIterator[dict[str, str]]:
    """What clients that are no Python of ours find in their environment; of ``full`` no place is left."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    full = {"command": "full", "input": {"messages": []}}
    async with httpx.AsyncClient(base_url=url, timeout=None) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, client.build_request("POST", "/v2/execute", json=full))
        with anyio.fail_after(10):
            await seen.hanging.wait()
        yield env | {
            "PENSTOCK_TEST_URL": url,
            "PENSTOCK_TEST_LOCKED_URL": locked_url,
            "PENSTOCK_TEST_KEY": ANNA.token,
        }
        tasks.cancel_scope.cancel()


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    """The vendor's client."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client
