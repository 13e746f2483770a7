"""Servers that break the rules, and what becomes of connections."""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from penstock.client.backoff import ONCE
from penstock.client.client import AsyncClient
from penstock.errors import (
    CallCancelled,
    CallError,
    ConnectionFailed,
    ErrorCode,
    PenstockError,
    RemoteProtocolError,
    ReplayTruncated,
    StreamTruncated,
)
from penstock.protocol.codec import SSE_KEEPALIVE, ndjson, ndjson_keepalive, sse

pytestmark = pytest.mark.anyio

Canned = Callable[..., Any]


def frame(status: str, seq: int | None = None, **more: Any) -> bytes:
    numbered = {} if seq is None else {"seq": seq}
    return json.dumps({"type": "task", "status": status, **more, "task_id": "t", **numbered}).encode()


ACCEPTED = frame("accepted", 0, request_id="9f")
ITEM = frame("streaming", 1, data="a")
DONE = frame("completed", 2, metrics={"items": 1})
GONE = frame("error", error="frames are gone", code="gone", first_seq=5)


def head(kind: str, *more: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", f"content-type: {kind}", *more, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = "transfer-encoding: chunked"
LAST = b"0\r\n\r\n"


def streamed(*lines: bytes, last: bytes = LAST) -> bytes:
    """A stream in chunks of one frame each."""
    return head("application/x-ndjson", CHUNKED) + b"".join(chunk(ndjson([line])) for line in lines) + last


def answered(body: bytes, status: str = "200 OK", kind: str = "application/json", *more: str) -> bytes:
    return head(kind, f"content-length: {len(body)}", *more, status=status) + body


async def read(client: AsyncClient) -> tuple[list[Any], PenstockError | None]:
    """The items of a stream, and what it raised."""
    items: list[Any] = []
    try:
        with anyio.fail_after(5):
            async with client.stream("any") as stream:
                async for item in stream:
                    items.append(item)
    except PenstockError as error:
        return items, error
    return items, None


# -- streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "items", "error", "message"),
    [
        (
            (ACCEPTED, ITEM),
            ["a"],
            StreamTruncated,
            r"stream of t ended after frame 1.*resume\('t', after=1\)",
        ),
        ((ACCEPTED,), [], StreamTruncated, "after frame 0"),
        ((), [], StreamTruncated, "[0-9a-f]{32} ended after frame -1, without its terminal frame: it ended"),
        ((ACCEPTED, ITEM, DONE, frame("streaming", 3, data="b")), ["a"], RemoteProtocolError, "came after"),
        ((ACCEPTED, ITEM, DONE, frame("completed", 3)), ["a"], RemoteProtocolError, "came after"),
        (
            (ACCEPTED, ITEM, frame("streaming", 3, data="c")),
            ["a"],
            RemoteProtocolError,
            "3 came where 2 was due",
        ),
        ((ACCEPTED, ITEM, ITEM), ["a"], RemoteProtocolError, "1 came where 2 was due"),
        ((ACCEPTED, frame("accepted", 1)), [], RemoteProtocolError, "frame 0, alone"),
        ((ITEM,), [], RemoteProtocolError, "1 came where 0 was due"),
        ((frame("streaming", 0, data="a"),), [], RemoteProtocolError, "frame 0, alone"),
        ((ACCEPTED, ITEM, b"<html>"), ["a"], RemoteProtocolError, "sent '<html>', not a frame"),
        ((ACCEPTED, ITEM, b"\xff\0"), ["a"], RemoteProtocolError, "not a frame"),
        ((ACCEPTED, ITEM, b'{"type":"task"}'), ["a"], RemoteProtocolError, "not a frame"),
        ((ACCEPTED, b"[1]"), [], RemoteProtocolError, "not a frame"),
        ((ACCEPTED, b"[" * 100_000), [], RemoteProtocolError, "not a frame"),
        ((ACCEPTED, ITEM, GONE), ["a"], ReplayTruncated, "frames are gone"),
        ((ACCEPTED, frame("error", 1, error="no")), [], CallError, "no"),
        ((ACCEPTED, frame("cancelled", 1, reason="caller")), [], CallCancelled, "call t was cancelled"),
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_stream_that_breaks_the_rules(
    canned: Canned,
    lines: tuple[bytes, ...],
    items: list[str],
    error: type[PenstockError],
    message: str,
    at_once: bool,
) -> None:
    text = (
        head("application/x-ndjson", CHUNKED) + chunk(ndjson(lines) or b"\n") + LAST
        if at_once
        else streamed(*lines)
    )
    async with canned((text, "keep")) as server, AsyncClient(server.url, retry=ONCE) as client:
        got, raised = await read(client)
    assert got == items
    assert type(raised) is error
    with pytest.raises(error, match=message):
        raise raised


async def test_keepalives_unknown_types_and_unknown_statuses_are_skipped(canned: Canned) -> None:
    others = (
        ndjson_keepalive(1.0).strip(),
        b'{"type":"weather","status":"fine"}',
        b'{"type":"x"}',
        frame("thinking", 1),
    )
    text = streamed(ACCEPTED, *others, frame("streaming", 2, data="a"), frame("completed", 3))
    async with canned((text, "keep")) as server, AsyncClient(server.url, retry=ONCE) as client:
        assert await read(client) == (["a"], None)


async def test_sse_with_comments(canned: Canned) -> None:
    body = SSE_KEEPALIVE + sse(0, [ACCEPTED, ITEM]) + SSE_KEEPALIVE + sse(2, [DONE])
    text = answered(body, "200 OK", "text/event-stream; charset=utf-8")
    async with canned((text, "keep")) as server, AsyncClient(server.url, retry=ONCE, form="sse") as client:
        assert await read(client) == (["a"], None)
    assert b"accept: text/event-stream\r\n" in server.requests[0].lower()


async def test_frames_without_numbers_as_other_servers_send_them(canned: Canned) -> None:
    text = streamed(frame("accepted"), frame("streaming", data={"chunk": "a"}), frame("completed"))
    async with canned((text, "keep")) as server, AsyncClient(server.url, retry=ONCE) as client:
        assert await read(client) == ([{"chunk": "a"}], None)


async def test_the_first_seq_of_a_gone_log_is_told(canned: Canned) -> None:
    async with (
        canned((streamed(ACCEPTED, GONE), "keep")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        _, raised = await read(client)
    assert isinstance(raised, ReplayTruncated)
    assert raised.first_seq == 5


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_that_breaks_within_a_stream(canned: Canned, ending: str) -> None:
    text = streamed(ACCEPTED, ITEM, last=b"")
    async with canned((text, ending)) as server, AsyncClient(server.url, retry=ONCE) as client:
        _, raised = await read(client)
    assert isinstance(raised, StreamTruncated)


async def test_a_server_that_falls_silent_is_given_up(canned: Canned) -> None:
    text = streamed(ACCEPTED, ITEM, last=b"")
    async with (
        canned((text, "hold")) as server,
        AsyncClient(server.url, retry=ONCE, silence_s=0.05) as client,
    ):
        items, raised = await read(client)
    assert items == ["a"]
    with pytest.raises(StreamTruncated, match="fell silent"):
        raise raised or AssertionError


@pytest.mark.parametrize(("length", "fits"), [(299, True), (300, True), (301, False)])
async def test_a_frame_has_a_limit(canned: Canned, length: int, fits: bool) -> None:
    item = frame("streaming", 1, data="")
    item = item.replace(b'""', b'"%b"' % (b"x" * (length - len(item))))
    assert len(item) == length
    async with (
        canned((streamed(ACCEPTED, item, DONE), "keep")) as server,
        AsyncClient(server.url, retry=ONCE, max_frame=300) as client,
    ):
        _, raised = await read(client)
    assert (raised is None) is fits
    assert fits or (isinstance(raised, CallError) and raised.code is ErrorCode.TOO_LARGE)


# -- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            answered(b"<h1>Oops</h1>", "500 Internal Server Error", "text/html"),
            CallError,
            "HTTP 500 with '<h1>Oops",
        ),
        (answered(b"", "502 Bad Gateway", "text/html"), CallError, "HTTP 502 with no body"),
        (
            answered(b"<h1>Hi</h1>", kind="text/html"),
            RemoteProtocolError,
            r"is it penstock that serves there\?",
        ),
        (
            answered(b"", "307 Temporary Redirect", "x", "location: http://e.test/"),
            RemoteProtocolError,
            "redirects to 'http://e",
        ),
        (answered(b"", "304 Not Modified", "x"), RemoteProtocolError, "answered HTTP 304"),
    ],
)
async def test_an_answer_that_is_not_ours(
    canned: Canned, answer: bytes, error: type[PenstockError], message: str
) -> None:
    async with (
        canned((answer, "close"), (answer, "close"), (answer, "close")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        _, raised = await read(client)
        for question in (client.run("any"), client.health()):
            with pytest.raises(error, match=message):
                await question
    assert type(raised) is error
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("400 Bad Request", ErrorCode.INVALID_ARGUMENT),
        ("401 Unauthorized", ErrorCode.UNAUTHENTICATED),
        ("418 I'm a teapot", ErrorCode.INVALID_ARGUMENT),
        ("429 Too Many Requests", ErrorCode.RESOURCE_EXHAUSTED),
        ("502 Bad Gateway", ErrorCode.UPSTREAM_FAILED),
        ("503 Service Unavailable", ErrorCode.UNAVAILABLE),
        ("507 Insufficient Storage", ErrorCode.INTERNAL),
    ],
)
@pytest.mark.parametrize(
    "body", [b"nginx", frame("error", error="no"), frame("error", error="no", code="new_code")]
)
async def test_a_status_without_a_code_we_know_decides(
    canned: Canned, status: str, code: ErrorCode, body: bytes
) -> None:
    async with (
        canned((answered(body, status, "x", "retry-after: 7"), "close")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        with pytest.raises(CallError) as caught:
            await client.run("any")
    assert (caught.value.code, caught.value.retry_after_s) == (code, 7)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"ok":true}', "is it penstock"),
        (b"\xff", "is it penstock"),
        (ACCEPTED, "'accepted' is|ends no call"),
        (ITEM, "ends no call"),
        (frame("thinking", 1), "ends no call"),
    ],
)
async def test_an_answer_that_ends_no_call(canned: Canned, body: bytes, message: str) -> None:
    async with canned((answered(body), "close")) as server, AsyncClient(server.url, retry=ONCE) as client:
        with pytest.raises(RemoteProtocolError, match=message):
            await client.run("any")


@pytest.mark.parametrize("body", [b'{"status":"fine"}', b"[]", b"nonsense"])
async def test_a_reply_to_a_question_must_have_its_shape(canned: Canned, body: bytes) -> None:
    async with canned((answered(body), "close")) as server, AsyncClient(server.url, retry=ONCE) as client:
        with pytest.raises(RemoteProtocolError, match="is it penstock"):
            await client.health()


async def test_an_answer_has_a_limit(canned: Canned) -> None:
    async with (
        canned((answered(b" " * 301), "close")) as server,
        AsyncClient(server.url, retry=ONCE, max_frame=300) as client,
    ):
        with pytest.raises(CallError, match="longer than 300 bytes"):
            await client.run("any")


async def test_an_answer_that_breaks_off(canned: Canned) -> None:
    async with (
        canned((answered(DONE)[:-5], "close")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        with pytest.raises(ConnectionFailed, match="broke within the answer"):
            await client.run("any")


# -- no server ---------------------------------------------------------------------------------------


async def test_no_server_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with AsyncClient(f"http://127.0.0.1:{port}", retry=ONCE) as client:
        _, raised = await read(client)
        for question in (client.run("any"), client.commands()):
            with pytest.raises(
                ConnectionFailed, match=f"no server answers at http://127.0.0.1:{port} .*penstock run"
            ):
                await question
    assert isinstance(raised, ConnectionFailed)
    assert raised.retryable


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_server_that_goes_away_before_it_answers(canned: Canned, ending: str) -> None:
    async with canned((b"", ending)) as server, AsyncClient(server.url, retry=ONCE) as client:
        with pytest.raises(ConnectionFailed, match="went away before it answered"):
            await client.run("any")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "127.0.0.1", "ftp://x", "http://", "", "http://a:b", "ws://", "wss:x"]
)
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"write it like [a-z]+://127"):
        AsyncClient(url)


async def test_a_header_that_cannot_be_sent_is_no_fault_of_the_server(canned: Canned) -> None:
    async with canned() as server, AsyncClient(server.url, retry=ONCE) as client:
        with pytest.raises(CallError, match="cannot be sent") as caught:
            await client.run("any", correlation_id="a\r\nx-evil: 1")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


# -- requests and connections ------------------------------------------------------------------------


async def test_what_is_asked(canned: Canned) -> None:
    async with (
        canned((answered(DONE), "keep"), (streamed(ACCEPTED, DONE), "close")) as server,
        AsyncClient(server.url + "/", retry=ONCE, api_key="secret") as client,
    ):
        await client.run("any", x=1)
        options = {"task_id": "t", "timeout_s": 3, "on_disconnect": {"grace_s": 5}, "notes": True}
        await client.stream("any", correlation_id="c", output_config={"a": 1}, **options).__aenter__()
    (first_head, first_body), (second_head, second_body) = (
        text.split(b"\r\n\r\n") for text in server.requests
    )
    assert first_head.startswith(b"POST /v2/execute HTTP/1.1\r\n")
    assert b"\r\nauthorization: bearer secret" in first_head.lower()
    assert b"\r\naccept-encoding: identity" in first_head.lower()
    assert b"\r\nx-request-id: c\r\n" in second_head.lower() + b"\r\n"
    assert first_body == b'{"command":"any","input":{"x":1},"is_stream":false}'
    assert json.loads(second_body) == {
        "command": "any",
        "input": {},
        "output_config": {"a": 1},
        "is_stream": True,
        "task_id": "t",
        "notes": True,
        "on_disconnect": {"grace_s": 5},
        "timeout": 3,
    }


async def test_a_key_may_come_from_the_environment(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_API_KEY", "from-the-environment")
    async with canned((answered(DONE), "keep"), (answered(DONE), "close")) as server:
        for given in (None, "given"):
            async with AsyncClient(server.url, retry=ONCE, api_key=given) as client:
                await client.run("any")
    heads = [text.partition(b"\r\n\r\n")[0].lower() for text in server.requests]
    assert b"\r\nauthorization: bearer from-the-environment" in heads[0]
    assert b"\r\nauthorization: bearer given" in heads[1]


async def test_ids_are_quoted_in_paths(canned: Canned) -> None:
    async with (
        canned((answered(b'{"outcome":"cancelled"}'), "close")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        assert await client.cancel("../a b?c") == "cancelled"
    assert server.requests[0].startswith(b"POST /tasks/..%2Fa%20b%3Fc/cancel HTTP/1.1\r\n")


async def test_a_connection_whose_stream_was_read_to_its_end_is_used_again(canned: Canned) -> None:
    whole = streamed(ACCEPTED, ITEM, DONE)
    async with (
        canned((whole, "keep"), (whole, "keep")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        assert await read(client) == await read(client) == (["a"], None)
        assert server.connections == 1


async def test_a_connection_whose_stream_was_left_is_closed_and_never_used_again(canned: Canned) -> None:
    part = streamed(ACCEPTED, ITEM, last=b"")
    async with (
        canned((part, "hold"), (answered(DONE), "close")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        async with client.stream("any") as stream:
            assert await stream.__anext__() == "a"
        with anyio.fail_after(5):
            await server.left.wait()
        await client.run("any")
        assert server.connections == 2
        del stream
        gc.collect()  # what httpx leaves behind must not complain


async def test_a_server_that_does_not_end_its_response_holds_nobody_up(
    canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.pacing.END_S", 0.01)
    part = streamed(ACCEPTED, ITEM, DONE, last=b"")
    async with canned((part, "hold")) as server, AsyncClient(server.url, retry=ONCE) as client:
        assert await read(client) == (["a"], None)
        with anyio.fail_after(5):
            await server.left.wait()


async def test_a_cancelled_reader_closes_its_connection(canned: Canned) -> None:
    async with (
        canned((streamed(ACCEPTED, last=b""), "hold")) as server,
        AsyncClient(server.url, retry=ONCE) as client,
    ):
        with anyio.move_on_after(0.05):
            async with client.stream("any") as stream:
                await stream.__anext__()
        with anyio.fail_after(5):
            await server.left.wait()


async def test_an_httpx_client_of_the_callers_own_is_not_closed(canned: Canned) -> None:
    async with canned((answered(DONE), "close")) as server, httpx.AsyncClient() as http:
        async with AsyncClient(server.url, retry=ONCE, http=http) as client:
            await client.run("any")
        assert not http.is_closed
