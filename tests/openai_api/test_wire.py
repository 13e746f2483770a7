"""What stands on the wire under `/v1/`, byte by byte where it matters."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import msgspec
import pytest

pytestmark = pytest.mark.anyio

CURL = shutil.which("curl")

CHAT = {"model": "talker", "messages": [{"role": "user", "content": "one two"}], "stream": True}


async def post(url: str, path: str, body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url) as client:
        return await client.post(path, json=body)


async def test_done_comes_last_and_only_after_success(url: str) -> None:
    good = await post(url, "/v1/chat/completions", CHAT)
    assert good.headers["content-type"] == "text/event-stream"
    events = good.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    failing = {**CHAT, "messages": [{"role": "user", "content": "one fail"}]}
    bad = await post(url, "/v1/chat/completions", failing)
    assert bad.status_code == 200
    assert "[DONE]" not in bad.text
    last = msgspec.json.decode(bad.text.split("\n\n")[-2].removeprefix("data: "))
    assert last["error"] == {
        "message": "as asked",
        "type": "server_error",
        "param": None,
        "code": "unavailable",
    }


async def test_errors_have_openais_shape_below_v1_and_ours_elsewhere(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        theirs = (await client.get("/v1/nothing")).json()
        ours = (await client.get("/nothing")).json()
    assert theirs["error"]["code"] == "not_found"
    assert (ours["status"], ours["code"]) == ("error", "not_found")


async def test_a_call_goes_by_the_id_of_its_answer(url: str, seen: SimpleNamespace) -> None:
    hanging = {**CHAT, "messages": [{"role": "user", "content": "one hang"}], "n": 2}
    async with httpx.AsyncClient(base_url=url) as client:
        with anyio.fail_after(10):
            async with client.stream("POST", "/v1/chat/completions", json=hanging) as answer:
                lines = answer.aiter_lines()
                first = msgspec.json.decode((await anext(lines)).removeprefix("data: "))
                await seen.hanging.wait()
                cut = await client.delete(f"/tasks/{first['id']}")
                rest = [line async for line in lines]
                other = await client.get(f"/tasks/{first['id']}-1")
    assert cut.json()["outcome"] == "cancelled"
    assert other.json()["status"] == "cancelled"  # a choice alone is no answer
    assert "[DONE]" not in "".join(rest)
    assert '"code":"cancelled"' in rest[-2]


async def test_a_stream_can_be_read_again(url: str) -> None:
    first = await post(url, "/v1/chat/completions", CHAT)
    lines = [line.removeprefix("data: ") for line in first.text.splitlines() if line.startswith("data: {")]
    answer = msgspec.json.decode(lines[0])["id"]
    async with httpx.AsyncClient(base_url=url) as client:
        again = await client.get(f"/tasks/{answer}/events?after=0")
        record = (await client.get(f"/tasks/{answer}")).json()
    assert again.text.splitlines() == lines[1:]
    assert (record["status"], record["command"]) == ("completed", "talk")
    assert "result" not in record


HANG = [{"role": "user", "content": "one hang"}]
SILENT = {
    "chat": ("/v1/chat/completions", {"model": "talker", "messages": HANG}),
    "choices": ("/v1/chat/completions", {"model": "talker", "messages": HANG, "n": 2}),
    "response": ("/v1/responses", {"model": "talker", "input": "one hang"}),
    "transport": ("/v1/chat/completions", {"model": "relayed", "messages": HANG, "user": "hang"}),
}


@pytest.mark.parametrize("which", SILENT)
async def test_a_silent_stream_gets_a_comment_now_and_then(lively_url: str, which: str) -> None:
    path, body = SILENT[which]
    with anyio.fail_after(10):
        async with (
            httpx.AsyncClient(base_url=lively_url) as client,
            client.stream("POST", path, json={**body, "stream": True}) as answer,
        ):
            lines = [line async for line in _until_comments(answer, 2)]
    assert any("one" in line for line in lines if line.startswith("data: "))


async def _until_comments(answer: httpx.Response, wanted: int) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        yield line
        wanted -= line.startswith(":")
        if not wanted:
            return


@pytest.mark.skipif(CURL is None, reason="no curl here")
async def test_curl_shows_a_stream_as_it_comes(url: str, seen: SimpleNamespace) -> None:
    body = msgspec.json.encode({"model": "talker", "messages": HANG, "stream": True}).decode()
    sent = ("-H", "Content-Type: application/json", "-d", body)
    command = [str(CURL), "--silent", "-N", f"{url}/v1/chat/completions", *sent]
    with anyio.fail_after(20):
        async with await anyio.open_process(command, stderr=None) as curl:
            assert curl.stdout is not None
            said = b""
            while b'"content":"one"' not in said:
                said += await curl.stdout.receive()
            assert said.startswith(b"data: {")
            await seen.hanging.wait()  # it is under way, and its first word was shown
            curl.terminate()
            await seen.cancelled.wait()
