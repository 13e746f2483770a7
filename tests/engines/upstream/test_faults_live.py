"""Everything a server can do wrong, over a real connection: a typed error, in time, and a clean next call."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from engines.upstream.raw import END, STREAM, RawServer, Seen, chunked, event, reply, told
from engines.upstream.talk import DONE, GOOD, end_of, good, piece, request, run, served
from penstock.engines.openai import OpenAIEngine, open_openai
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineStart

pytestmark = pytest.mark.anyio

KEY = "the-key-nobody-may-see"


def sends(*parts: bytes, hang_up: bool = False) -> Callable[[Seen], Any]:
    async def answer(seen: Seen) -> None:
        await seen.send(*parts)
        if hang_up:
            seen.hang_up()

    return answer


async def clean(server: RawServer, engine: OpenAIEngine) -> None:
    """The next call is as if nothing had been."""
    server.answer = good
    end = await end_of(engine)
    assert (end.output_text, end.finish_reason, end.error) == ("one two", "stop", None)


def hidden(said: str, server: RawServer) -> None:
    """A caller does not learn where the server is, or how one gets in."""
    assert not [part for part in (str(server.port), "127.0.0.1", "/v1", KEY) if part in said], said


def error(kind: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": "it went wrong", "type": kind, **more}}


REFUSALS = [
    (reply(400, error("invalid_request_error")), "invalid_argument", False),
    (reply(401, error("invalid_request_error", code="invalid_api_key")), "upstream_failed", False),
    (reply(403, b"<html>"), "upstream_failed", False),
    (reply(404, error("not_found_error")), "upstream_failed", False),
    (reply(408), "deadline_exceeded", True),
    (reply(413), "too_large", False),
    (reply(418), "upstream_failed", False),
    (reply(422, {"detail": [{"msg": "bad"}]}), "invalid_argument", False),
    (reply(429, error("rate_limit_exceeded")), "resource_exhausted", True),
    (reply(429, error("insufficient_quota")), "resource_exhausted", False),
    (reply(500, error("server_error")), "upstream_failed", True),
    (reply(501, error("not_supported_error")), "not_implemented", False),
    (reply(502, b"\xff\xfe"), "upstream_failed", True),
    (reply(503, error("unavailable_error")), "unavailable", True),
    (reply(504), "deadline_exceeded", True),
    (reply(529), "unavailable", True),
    (reply(599), "upstream_failed", True),
    (reply(204), "upstream_failed", True),
    (reply(302, location="http://127.0.0.1:1/elsewhere"), "upstream_failed", False),
    (reply(307, location="/v1/other"), "upstream_failed", False),
    # No stream, though the status says so.
    (reply(200, error("server_error", code=500)), "upstream_failed", True),
    (reply(200, b"<html>", content_type="text/html"), "upstream_failed", True),
    (reply(200, {"choices": []}), "upstream_failed", True),
    (reply(200, b"x", content_type="text/event-stream", content_encoding="gzip"), "upstream_failed", True),
    # An error before anything else in the stream.
    (STREAM + event(error("invalid_request_error")) + END, "invalid_argument", False),
    (STREAM + event({"object": "error", "message": "no", "code": 400}) + END, "invalid_argument", False),
    (STREAM + event({"error": "model is loading"}) + END, "upstream_failed", True),
    (STREAM + event(b"{no json") + END, "upstream_failed", True),
    (STREAM + event(b"[1,2]") + END, "upstream_failed", True),
    (STREAM + event({"choices": [{"delta": {"content": 5}}]}) + END, "upstream_failed", True),
    (STREAM + END, "upstream_failed", True),
    (STREAM + DONE + END, "upstream_failed", True),
    # No HTTP.
    (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "unavailable", True),
    (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: x\r\n\r\n", "unavailable", True),
    (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000 + b"\r\n\r\n", "unavailable", True),
    (b"", "unavailable", True),
]


@pytest.mark.parametrize(("answer", "code", "retryable"), REFUSALS)
async def test_what_is_no_answer_is_raised_before_the_first_event(
    answer: bytes, code: str, retryable: bool
) -> None:
    async with served(sends(answer, hang_up=True), api_key=KEY) as (server, engine):
        with pytest.raises(CallError) as raised:
            await run(engine)
        assert (raised.value.code.value, raised.value.retryable) == (code, retryable)
        hidden(raised.value.message, server)
        assert len(server.seen) == 1
        await clean(server, engine)


BREAKS = [
    (event(error("server_error")) + END, "upstream_failed"),
    (event(error("overloaded_error")), "unavailable"),
    (event({"error": {"message": "context", "code": 400}}) + END, "invalid_argument"),
    (event(b"{no json"), "upstream_failed"),
    (event(b"\xff\xfe"), "upstream_failed"),
    (event(piece("x", id="chatcmpl-2")), "upstream_failed"),
    (event(piece(None, "content_filter")) + DONE + END, "upstream_failed"),
    (event(piece(None, "abort")) + DONE + END, "upstream_failed"),
    (END, "upstream_failed"),
    (DONE + END, "upstream_failed"),
    (b"", "upstream_failed"),
    (b"garbage, no chunk\r\n", "upstream_failed"),
    (chunked(b"data: {"), "upstream_failed"),
]


@pytest.mark.parametrize(("rest", "code"), BREAKS)
async def test_an_answer_that_breaks_ends_as_an_error_and_never_as_complete(rest: bytes, code: str) -> None:
    async with served(sends(STREAM, event(piece("one ")), rest, hang_up=True)) as (server, engine):
        start, delta, end = await run(engine)
        assert isinstance(start, EngineStart)
        assert end.finish_reason == "error"
        assert end.error.code == code
        assert end.output_text == delta.chunk == "one "
        hidden(end.error.message, server)
        await clean(server, engine)
        assert [seen.number for seen in server.seen] == [0, 1]


async def test_a_connection_that_is_reset_is_a_broken_answer() -> None:
    async def answer(seen: Seen) -> None:
        await seen.send(STREAM, event(piece("one ")))
        while not seen.gone.is_set():
            await anyio.lowlevel.checkpoint()
            seen.reset()

    async with served(answer) as (server, engine):
        with pytest.raises(CallError, match="broke") as raised:
            [text async for text in engine.stream_text("hello")]
        assert raised.value.code in (ErrorCode.UPSTREAM_FAILED, ErrorCode.UNAVAILABLE)
        await clean(server, engine)


@pytest.mark.parametrize("tail", [(), (DONE,), (event(error("server_error")),), (b"nonsense\r\n",)])
async def test_nothing_after_the_reason_of_the_end_makes_it_fail(tail: tuple[bytes, ...]) -> None:
    answer = sends(*GOOD[:3], event(piece(None, "length")), *tail, hang_up=True)
    async with served(answer) as (server, engine):
        end = await end_of(engine)
        assert (end.output_text, end.finish_reason) == ("one two", "length")
        await clean(server, engine)


async def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    async with RawServer(good) as server:
        port = server.port
    engine = open_openai(f"http://127.0.0.1:{port}", model="m", retries=1, first_pause_s=0.001)
    with pytest.raises(CallError, match="cannot be reached") as raised:
        await run(engine)
    assert raised.value.code is ErrorCode.UNAVAILABLE
    assert str(port) not in raised.value.message
    await engine.aclose()


async def test_a_redirect_to_another_host_is_not_followed() -> None:
    async with RawServer(good) as other:
        answer = sends(reply(307, location=f"{other.url}/v1/chat/completions"))
        async with served(answer, api_key=KEY) as (server, engine):
            with pytest.raises(CallError, match="not followed"):
                await run(engine)
            assert other.connections == []
            await clean(server, engine)


async def test_a_line_of_100_mb_is_refused_in_bounded_memory() -> None:
    sent = 0

    async def answer(seen: Seen) -> None:
        nonlocal sent
        await seen.send(STREAM, event(piece("one ")), chunked(b'data: {"id": "'))
        million = chunked(b"x" * 1_000_000)
        while sent < 100 and not seen.gone.is_set():
            await seen.send(million)
            sent += 1

    async with served(answer) as (server, engine):
        await end_of(engine)  # what is loaded once is loaded
        sent = 0
        tracemalloc.start()
        try:
            end = await end_of(engine)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert end.error is not None
        assert end.error.code == "too_large"
        assert sent < 50
        assert most < 48_000_000
        await clean(server, engine)


async def test_a_refusal_without_end_is_not_read_to_its_end() -> None:
    async def answer(seen: Seen) -> None:
        await seen.send(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n")
        while not seen.gone.is_set():
            await seen.send(chunked(b"x" * 65536))
            await anyio.lowlevel.checkpoint()

    async with served(answer) as (server, engine):
        with pytest.raises(CallError) as raised:
            await run(engine)
        assert raised.value.code is ErrorCode.UPSTREAM_FAILED
        await clean(server, engine)


async def test_an_answer_that_comes_byte_by_byte_is_the_same_answer() -> None:
    async def answer(seen: Seen) -> None:
        text = b"".join(map(told, (piece("einś 🦊 "), piece("two"), piece(None, "stop"), b"[DONE]")))
        await seen.send(STREAM, *(chunked(text[at : at + 1]) for at in range(len(text))), END)

    async with served(answer) as (_, engine):
        end = await end_of(engine)
    assert (end.output_text, end.finish_reason) == ("einś 🦊 two", "stop")


async def test_the_log_says_where_and_what_and_nobody_s_words_or_keys(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusal = reply(400, {"error": {"message": f"secret question {KEY}", "type": "invalid_request_error"}})
    with caplog.at_level(logging.DEBUG, logger="penstock"):
        async with served(sends(refusal), api_key=KEY) as (server, engine):
            with pytest.raises(CallError) as raised:
                await run(engine)
            assert KEY not in raised.value.message
            assert f"127.0.0.1:{server.port}" in caplog.text
    assert "400" in caplog.text
    assert "invalid_request_error" in caplog.text
    assert "secret question" not in caplog.text
    assert KEY not in caplog.text


async def test_only_what_the_server_needs_is_sent_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-ours")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with served() as (server, engine):
        asked = request()
        await run(engine, asked)
    sent = server.seen[0].headers
    assert sent["x-request-id"] == asked.request_id
    assert "authorization" not in sent
    assert not [value for value in sent.values() if "ours" in value or "of-openai" in value]
    assert {name for name in sent if name.startswith("x-")} == {"x-request-id", "x-stainless-raw-response"}
