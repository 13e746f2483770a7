"""Connections that drop: streams are read on, and requests are sent again where that is safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import pytest

from client.conftest import QUICK
from client.cutter import Cutter
from penstock.client import AsyncClient, Retry
from penstock.client.backoff import Backoff, safe_to_repeat
from penstock.errors import (
    CallCancelled,
    CallError,
    ConnectionFailed,
    ErrorCode,
    PenstockError,
    ReplayTruncated,
    StreamTruncated,
)
from penstock.runtime.app import App

pytestmark = pytest.mark.anyio

WANTED = [{"n": 0}, {"n": 1}]
WAIT_S = 60
AT_ONCE = 8
Canned = Callable[..., Any]


class Read(NamedTuple):
    """What a stream gave, and how it ended."""

    items: list[Any]
    last_seq: int
    error: PenstockError | None
    cutter: Cutter


async def read_through(cutter: Cutter, form: Any, **options: Any) -> Read:
    items, error = [], None
    async with cutter as url:
        forms = {} if form == "websocket" else {"form": form}
        async with AsyncClient(_target(url, form), retry=QUICK, **forms) as client:
            stream = client.stream("tick", n=len(WANTED), **options)
            try:
                async for item in stream:
                    items.append(item)
            except PenstockError as caught:
                error = caught
    return Read(items, stream.last_seq, error, cutter)


def _target(url: str, form: str) -> str:
    return url.replace("http", "ws") if form == "websocket" else url


# -- cut at every byte -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ndjson", "sse", "websocket"])
async def test_cut_at_any_byte_a_stream_gives_each_item_once(url: str, form: str) -> None:
    """Over WebSocket a cut may leave open whether the call was accepted: that is then told."""
    whole = await read_through(Cutter(url), form)
    assert (whole.items, whole.error) == (WANTED, None)
    offsets, resumed, unknown = iter(range(whole.cutter.carried)), 0, 0

    async def work() -> None:
        nonlocal resumed, unknown
        for offset in offsets:
            read = await read_through(Cutter(url, offset), form, **_kept(form, offset))
            if isinstance(read.error, ConnectionFailed) and form == "websocket":
                assert (read.items, read.last_seq) == ([], -1)
                unknown += 1
                continue
            assert (offset, read.items, read.error, read.last_seq) == (offset, WANTED, None, 3)
            resumed += read.cutter.connections > 1

    with anyio.fail_after(WAIT_S):
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(work)
    assert resumed > whole.cutter.carried * 0.7
    assert unknown < 8  # where the server had not read the request by then


def _kept(form: str, offset: int) -> dict[str, Any]:
    """Return what has a call live on that nobody reads; over HTTP a key does, and has it found again."""
    return (
        {"on_disconnect": {"grace_s": 5}} if form == "websocket" else {"idempotency_key": f"{form}{offset}"}
    )


@pytest.mark.parametrize("form", ["ndjson", "websocket"])
async def test_a_call_without_a_key_is_found_by_the_name_it_was_given(url: str, form: str) -> None:
    whole = await read_through(Cutter(url), form)
    accepted = whole.cutter.carried // 2
    read = await read_through(Cutter(url, accepted), form, on_disconnect={"grace_s": 5})
    assert (read.items, read.error) == (WANTED, None)
    assert read.cutter.connections > 1


@pytest.mark.parametrize("form", ["ndjson", "websocket"])
async def test_a_call_that_is_not_kept_says_that_it_was_cancelled(url: str, form: str) -> None:
    cutter = Cutter(url)
    async with (
        cutter as through,
        AsyncClient(_target(through, form), retry=QUICK) as client,
        client.stream("hang") as stream,
    ):
        assert await stream.__anext__() == "first"
        await cutter.cut()
        with anyio.fail_after(WAIT_S), pytest.raises(CallCancelled, match="on_disconnect") as caught:
            await stream.__anext__()
    assert caught.value.reason == "disconnect"


@pytest.mark.parametrize("form", ["ndjson", "websocket"])
async def test_a_stream_that_cannot_be_read_on_is_truncated(url: str, form: str) -> None:
    cutter = Cutter(url, 700, final=True)
    read = await read_through(cutter, form, task_id="mine", on_disconnect="continue")
    assert isinstance(read.error, StreamTruncated)
    assert isinstance(read.error.__cause__, ConnectionFailed)
    with pytest.raises(StreamTruncated, match=rf"mine ended after frame {read.last_seq}, .*no .* answers"):
        raise read.error


async def test_the_clients_own_on_disconnect_is_the_default(app: App, url: str) -> None:
    async with AsyncClient(url, on_disconnect="continue") as client:
        async with client.stream("hang", task_id="mine") as stream:
            await stream.__anext__()
        assert (await client.task("mine")).status == "streaming"
        assert await client.cancel("mine") == "cancelled"


# -- requests ----------------------------------------------------------------------------------------

BUSY = b'{"type":"task","status":"error","error":"busy","code":"resource_exhausted","retryable":true}'
DONE = b'{"type":"task","status":"completed","data":5,"task_id":"t","seq":1}'


def answered(status: str, body: bytes, *head: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *head)
    return "\r\n".join((*lines, "", "")).encode() + body


async def test_a_request_that_was_refused_for_now_is_sent_again(canned: Canned) -> None:
    answers = [(answered("429 Too Many Requests", BUSY), "keep"), (answered("200 OK", DONE), "close")]
    async with canned(*answers) as server, AsyncClient(server.url, retry=QUICK) as client:
        assert await client.run("any") == 5
    assert len(server.requests) == 2


async def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(canned: Canned) -> None:
    answer = answered("429 Too Many Requests", BUSY, "retry-after: 60")
    async with canned((answer, "close")) as server, AsyncClient(server.url, retry=QUICK) as client:
        with pytest.raises(CallError) as caught:
            await client.run("any")
    assert (caught.value.retry_after_s, len(server.requests)) == (60, 1)


async def test_a_request_that_may_have_been_accepted_is_sent_again_under_a_key_only(canned: Canned) -> None:
    async with canned((b"", "reset")) as server, AsyncClient(server.url, retry=QUICK) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.run("any")
    assert (caught.value.sent, len(server.requests)) == (True, 1)
    answers = [(b"", "reset"), (answered("200 OK", DONE), "close")]
    async with canned(*answers) as server, AsyncClient(server.url, retry=QUICK) as client:
        assert await client.run("any", idempotency_key="k") == 5
    assert server.requests[0] == server.requests[1]
    assert b"\r\nidempotency-key: k\r\n" in server.requests[0].lower()


async def test_a_key_travels_over_http_only(app: App, url: str) -> None:
    for target in (app, url.replace("http", "ws")):
        async with AsyncClient(target) as client:
            for ask in (
                client.run("echo", text="a", idempotency_key="k"),
                client.stream("echo", text="a", idempotency_key="k").__aenter__(),
            ):
                with pytest.raises(CallError, match="over HTTP only") as caught:
                    await ask
                assert caught.value.code is ErrorCode.NOT_IMPLEMENTED


async def test_the_same_request_under_a_key_runs_once(url: str, seen: Any) -> None:
    async with AsyncClient(url) as client:
        for _ in range(2):
            assert await client.run("echo", text="a", idempotency_key="k") == {"text": "a"}
            items = [item async for item in client.stream("echo", text="a", idempotency_key="s")]
            assert items == [{"text": "a"}]
        with pytest.raises(CallError) as caught:
            await client.run("echo", text="b", idempotency_key="k")
    assert caught.value.code is ErrorCode.CONFLICT
    assert len(seen.metadata) == 2


async def test_frames_that_are_gone_are_told_with_where_to_go_on(canned: Canned) -> None:
    accepted = b'{"type":"task","status":"accepted","task_id":"t","seq":0,"request_id":"9f"}\n'
    stream = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n" + accepted
    gone = b'{"type":"task","status":"error","error":"gone","code":"gone","first_seq":7}'
    answers = [(stream, "reset"), (answered("410 Gone", gone), "close")]
    async with canned(*answers) as server, AsyncClient(server.url, retry=QUICK) as client:
        with pytest.raises(ReplayTruncated) as caught:
            async for _ in client.stream("any", correlation_id="c"):
                pass
    assert caught.value.first_seq == 7
    assert server.requests[1].startswith(b"GET /tasks/9f/events?after=0 HTTP/1.1\r\n")
    assert b"\r\nx-request-id: c\r\n" in server.requests[1].lower()


# -- when, and how long ------------------------------------------------------------------------------


def test_pauses_grow_up_to_a_bound_and_are_not_all_alike() -> None:
    retry = Retry(attempts=5, base_s=1, cap_s=4)
    runs = [[Backoff.pause(backoff, OSError()) for _ in range(6)] for backoff in _backoffs(retry, 20)]
    for pauses in runs:
        assert pauses[-1] is None
        for pause, bound in zip(pauses, (1, 2, 4, 4, 4), strict=False):
            assert bound / 2 <= (pause or 0) <= bound
    assert len({run[0] for run in runs}) > 1


def _backoffs(retry: Retry, count: int) -> list[Backoff]:
    return [Backoff(retry) for _ in range(count)]


def test_success_begins_anew_and_a_server_is_given_the_time_it_asks_for() -> None:
    backoff = Backoff(Retry(attempts=1, base_s=0.1, cap_s=5))
    busy = CallError("busy", ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=3)
    assert backoff.pause(busy) == 3
    assert backoff.pause(busy) is None
    backoff.reset()
    assert backoff.pause(busy) == 3
    with pytest.raises(ValueError, match="negative"):
        Retry(attempts=-1)


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("sent", [False, True])
def test_what_is_safe_to_repeat(idempotent: bool, sent: bool) -> None:
    def safe(error: CallError) -> bool:
        return safe_to_repeat(error, idempotent=idempotent)

    assert safe(ConnectionFailed("gone", sent=sent)) is (idempotent or not sent)
    assert safe(CallError("busy", ErrorCode.RESOURCE_EXHAUSTED))
    assert safe(CallError("draining", ErrorCode.UNAVAILABLE))
    assert safe(CallError("late", ErrorCode.DEADLINE_EXCEEDED)) is idempotent
    assert safe(CallError("bad", ErrorCode.INVALID_ARGUMENT)) is False
