"""Whatever an SGLang server does wrong is a typed error, in time, and leaves the next call clean."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from engines.upstreams.asking import chatting, end_of, prompting, said, until, whole
from engines.upstreams.server import Faults
from engines.upstreams.sglang import SGLangServer
from penstock.engines.sglang import SGLangEngine, open_sglang
from penstock.errors import CallError
from penstock.protocol.events import EngineRequest

pytestmark = pytest.mark.anyio

ROUTES = pytest.mark.parametrize("asked", [prompting, chatting])
Asked = Callable[..., EngineRequest]


@pytest.fixture
async def server() -> AsyncIterator[SGLangServer]:
    played = SGLangServer()
    played.length = 20
    async with played.running():
        yield played


@pytest.fixture
async def engine(server: SGLangServer) -> AsyncIterator[SGLangEngine]:
    opened = open_sglang(server.url, connect_s=1, first_token_s=0.4, gap_s=0.3, close_s=0.5, retries=0)
    yield opened
    await opened.aclose()


async def failing(engine: SGLangEngine, request: EngineRequest, within_s: float = 3.0) -> tuple[str, str]:
    """The code and the message of a generation that fails, at its start or later."""
    began = time.monotonic()
    try:
        end = end_of(await whole(engine, request))
    except CallError as error:
        code, message = error.code.value, error.message
    else:
        assert end.finish_reason == "error"
        assert end.error is not None
        code, message = end.error.code, end.error.message
    assert time.monotonic() - began < within_s
    assert "127.0.0.1" not in message
    return code, message


async def clean(server: SGLangServer, engine: SGLangEngine) -> None:
    """Nothing runs, and the next call is as if nothing had been."""
    server.faults = Faults()
    server.gate.open()
    server.headers_gate.set()
    await until(lambda: not server.live)
    assert not len(engine.tasks)
    assert said(await whole(engine, prompting("next", max_tokens=2))) == "next#0 next#1 "


@ROUTES
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_argument"),
        (401, "upstream_failed"),
        (404, "upstream_failed"),
        (413, "too_large"),
        (429, "resource_exhausted"),
        (500, "upstream_failed"),
        (503, "unavailable"),
        (307, "upstream_failed"),
    ],
)
async def test_a_refusal_has_the_code_of_its_status(
    server: SGLangServer, engine: SGLangEngine, asked: Asked, status: int, code: str
) -> None:
    server.faults.status = status
    server.faults.headers = {"location": "http://127.0.0.2:1/generate"} if status == 307 else {}
    server.faults.body = b'{"object": "error", "message": "no", "code": %d}' % status
    assert (await failing(engine, asked()))[0] == code
    assert server.aborts == []
    await clean(server, engine)


async def test_retry_after_is_told(server: SGLangServer, engine: SGLangEngine) -> None:
    server.faults.status, server.faults.headers = 429, {"retry-after": "7"}
    with pytest.raises(CallError) as raised:
        await whole(engine, prompting())
    assert (raised.value.retry_after_s, raised.value.retryable) == (7.0, True)


async def test_a_busy_server_is_asked_again_under_another_id(server: SGLangServer) -> None:
    server.faults.status, server.faults.times, server.length = 503, 1, 2
    async with open_sglang(server.url, retries=1) as engine:
        assert said(await whole(engine, prompting())) == "fox#0 fox#1 "
    first, second = (seen.json["rid"] for seen in server.seen_at("/generate"))
    assert first != second
    assert server.aborts == []


async def test_a_connection_lost_before_an_answer_is_tried_again_and_its_work_called_off(
    server: SGLangServer,
) -> None:
    server.faults.drop_before_headers, server.length = 1, 2
    async with open_sglang(server.url, retries=1, close_s=1) as engine:
        assert said(await whole(engine, prompting())) == "fox#0 fox#1 "
    first, second = (seen.json["rid"] for seen in server.seen_at("/generate"))
    assert server.aborts == [first] != [second]


async def test_nobody_listens(server: SGLangServer, engine: SGLangEngine) -> None:
    await server.refuse()
    assert await failing(engine, prompting()) == ("unavailable", "sglang cannot be reached")
    assert not len(engine.tasks)


@ROUTES
async def test_silence_before_the_answer(server: SGLangServer, engine: SGLangEngine, asked: Asked) -> None:
    server.headers_gate.clear()
    code, message = await failing(engine, asked())
    assert code == "deadline_exceeded"
    assert "first token budget" in message
    assert len(server.aborts) <= 1
    await clean(server, engine)


@ROUTES
async def test_silence_between_two_tokens(server: SGLangServer, engine: SGLangEngine, asked: Asked) -> None:
    server.gate.hold(after=2)
    request = asked()
    code, message = await failing(engine, request)
    assert code == "deadline_exceeded"
    assert "gap budget" in message
    assert (server.aborts, server.useless) == ([request.request_id], [])
    await clean(server, engine)


@ROUTES
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("error_after", "upstream_failed"),
        ("cut_after", "upstream_failed"),
        ("end_after", "upstream_failed"),
        ("junk_after", "upstream_failed"),
        ("long_line_after", "too_large"),
    ],
)
@pytest.mark.parametrize("tokens", [0, 3])
async def test_a_broken_stream_is_a_failure_and_never_the_end(
    server: SGLangServer, engine: SGLangEngine, asked: Asked, fault: str, code: str, tokens: int
) -> None:
    setattr(server.faults, fault, tokens)
    server.gate.hold(after=tokens)
    found, _ = await failing(engine, asked(), within_s=5)
    assert found == code
    await clean(server, engine)


async def test_a_line_of_100_mb_is_not_kept(server: SGLangServer, engine: SGLangEngine) -> None:
    server.faults.long_line_after = 0
    await failing(engine, prompting(), within_s=5)
    await until(server.seen[0].connection.lost.is_set)
    assert server.seen[0].connection.sent < server.faults.long_line_bytes / 2
    await clean(server, engine)


@ROUTES
async def test_an_answer_for_another_id(server: SGLangServer, engine: SGLangEngine, asked: Asked) -> None:
    server.faults.other_id = True
    code, message = await failing(engine, asked(max_tokens=3))
    assert code == "upstream_failed"
    assert "another" in message
    server.useless.clear()
    await clean(server, engine)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ({"message": "prompt too long", "status_code": 400}, "invalid_argument"),
        ({"message": "The request queue is full.", "status_code": 503}, "unavailable"),
        ({"message": "Abort", "status_code": None}, "upstream_failed"),
        ({}, "upstream_failed"),
    ],
)
@pytest.mark.parametrize("after", [0, 2])
async def test_what_the_server_aborts_by_itself(
    server: SGLangServer, engine: SGLangEngine, reason: dict[str, Any], code: str, after: int
) -> None:
    server.aborted_by_itself_after, server.abort_reason = after, reason
    assert (await failing(engine, prompting()))[0] == code
    assert server.aborts == []
    server.aborted_by_itself_after = 1000
    await clean(server, engine)


async def test_what_the_chat_route_aborts_by_itself(server: SGLangServer, engine: SGLangEngine) -> None:
    server.aborted_by_itself_after = 2
    assert (await failing(engine, chatting()))[0] == "upstream_failed"
    assert server.aborts == []


async def test_a_mistake_the_server_finds_is_the_callers(server: SGLangServer, engine: SGLangEngine) -> None:
    server.mistake = "The input (9000 tokens) is longer than the model's context length (8192 tokens)."
    code, message = await failing(engine, prompting())
    assert code == "invalid_argument"
    assert "longer than the model's context length" in message
    assert server.aborts == []


async def test_a_call_without_time_left_is_not_sent(server: SGLangServer, engine: SGLangEngine) -> None:
    with anyio.move_on_after(0):
        await whole(engine, prompting())
    assert not server.seen
