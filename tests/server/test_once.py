"""Idempotency-Key: a request that is sent again finds the call of the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

from behaviour.served import hosted
from penstock import CommandError, Runtime
from penstock.runtime.app import App
from penstock.server import once

pytestmark = pytest.mark.anyio


def project(seen: SimpleNamespace) -> Runtime:
    rt = Runtime()

    @rt.command("count")
    async def count(text: str = "") -> int:
        seen.ran += 1
        if text == "wait":
            seen.waiting.set()
            await seen.go.wait()
        if text == "fail" and seen.ran == 1:
            raise CommandError("not yet")
        return int(seen.ran)

    @rt.streaming_command("tick", openai="chat")
    async def tick(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
        seen.ran += 1
        for word in ("a", "b"):
            yield word

    return rt


@pytest.fixture
def seen() -> SimpleNamespace:
    return SimpleNamespace(ran=0, waiting=asyncio.Event(), go=asyncio.Event())


@pytest.fixture
async def client(seen: SimpleNamespace) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        App(project(seen)) as app,
        hosted(app) as (_, (host, port)),
        httpx.AsyncClient(base_url=f"http://{host}:{port}") as client,
    ):
        yield client


async def run(
    client: httpx.AsyncClient, key: str | None = "k", text: str = "", **more: Any
) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"command": "count", "input": {"text": text}, **more}
    with anyio.fail_after(10):
        return await client.post("/v2/execute", json=body, headers=headers)


async def test_the_same_request_runs_once(client: httpx.AsyncClient, seen: SimpleNamespace) -> None:
    first, again = await run(client), await run(client)
    assert (first.json(), again.json()) == (again.json(), first.json())
    assert (first.json()["data"], seen.ran) == (1, 1)
    assert (await run(client, "other")).json()["data"] == 2
    assert (await run(client, None)).json()["data"] == 3


async def test_one_that_is_still_running_is_waited_for(
    client: httpx.AsyncClient, seen: SimpleNamespace
) -> None:
    answers: list[Any] = []

    async def ask() -> None:
        answers.append((await run(client, text="wait")).json()["task_id"])

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with anyio.fail_after(10):
            await seen.waiting.wait()
        group.start_soon(ask)
        seen.go.set()
    assert (len(set(answers)), seen.ran) == (1, 1)


async def test_a_caller_who_lost_its_connection_finds_its_answer(
    client: httpx.AsyncClient, seen: SimpleNamespace
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run, client, "k", "wait")
        with anyio.fail_after(10):
            await seen.waiting.wait()
        group.cancel_scope.cancel()
    seen.go.set()
    assert ((await run(client, text="wait")).json()["data"], seen.ran) == (1, 1)


async def test_another_request_under_the_same_key_is_a_conflict(client: httpx.AsyncClient) -> None:
    await run(client)
    other = await run(client, text="other")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


async def test_a_stream_is_another_request_than_an_answer(client: httpx.AsyncClient) -> None:
    body, key = {"command": "count", "input": {}}, {"Idempotency-Key": "k"}
    accepts = ("application/x-ndjson", "application/json")
    first, other = [
        await client.post("/v2/execute", json=body, headers={**key, "Accept": kind}) for kind in accepts
    ]
    assert (first.status_code, other.status_code) == (200, 409)


async def test_what_failed_runs_anew(client: httpx.AsyncClient, seen: SimpleNamespace) -> None:
    assert (await run(client, text="fail")).status_code == 500
    assert ((await run(client, text="fail")).json()["data"], seen.ran) == (2, 2)


async def test_what_was_refused_runs_anew(client: httpx.AsyncClient, seen: SimpleNamespace) -> None:
    for _ in range(2):
        assert (await run(client, command="nothing")).status_code == 404
    assert seen.ran == 0


@pytest.mark.parametrize("key", ["", "x" * 257])
async def test_a_key_has_a_length(client: httpx.AsyncClient, key: str) -> None:
    assert (await run(client, key)).json()["code"] == "invalid_argument"


async def test_the_oldest_keys_are_forgotten(
    client: httpx.AsyncClient, seen: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "KEPT", 2)
    for key in ("a", "b", "c", "a", "c"):
        await run(client, key)
    assert seen.ran == 4


async def test_openais_answers_too(client: httpx.AsyncClient, seen: SimpleNamespace) -> None:
    body = {"model": "tick", "messages": [{"role": "user", "content": "x"}], "stream": True}
    body["stream_options"] = {"include_usage": True}
    headers = {"Idempotency-Key": "k"}
    answers = [await client.post("/v1/chat/completions", json=body, headers=headers) for _ in range(2)]
    assert answers[0].text == answers[1].text
    assert (answers[0].text.endswith("[DONE]\n\n"), seen.ran) == (True, 1)
