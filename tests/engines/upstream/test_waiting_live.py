"""Budgets and retries over a real connection: each wait has its bound, and each bound its name."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from engines.upstream.raw import STREAM, Seen, event, reply
from engines.upstream.talk import GOOD, call, end_of, good, hangs, piece, request, run, served
from penstock.engines.openai import OpenAIEngine, open_openai
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineEnd

pytestmark = pytest.mark.anyio


async def spent(engine: OpenAIEngine) -> tuple[str, Any]:
    """The code and the budget a call ends with."""
    try:
        end = (await run(engine))[-1]
    except CallError as error:
        return error.code.value, error.details[0]["budget"]
    assert isinstance(end, EngineEnd)
    assert end.error is not None
    return end.error.code, end.error.message


TOKEN = event(piece("one "))


@pytest.mark.parametrize("parts", [(), (STREAM,)])
@pytest.mark.parametrize("alive", [False, True])
async def test_an_answer_that_does_not_begin_is_given_up(parts: tuple[bytes, ...], alive: bool) -> None:
    async with served(hangs(*parts, alive=alive and bool(parts)), first_token_s=0.2) as (server, engine):
        with anyio.fail_after(5):
            assert await spent(engine) == ("deadline_exceeded", "first_token")
            await server.seen[0].gone.wait()
        server.answer = good
        assert (await end_of(engine)).finish_reason == "stop"


@pytest.mark.parametrize("alive", [False, True])
async def test_an_answer_that_falls_silent_is_given_up(alive: bool) -> None:
    async with served(hangs(STREAM, TOKEN, alive=alive), gap_s=0.2) as (server, engine):
        with anyio.fail_after(5):
            code, message = await spent(engine)
            await server.seen[0].gone.wait()
        assert code == "deadline_exceeded"
        assert "(gap budget)" in message
        server.answer = good
        assert (await end_of(engine)).finish_reason == "stop"


async def test_silence_after_the_first_chunk_is_still_the_first_token_s() -> None:
    async with served(hangs(STREAM, event(piece(role="assistant"))), first_token_s=0.2) as (_, engine):
        code, message = await spent(engine)
    assert code == "deadline_exceeded"
    assert "(first token budget)" in message


@pytest.mark.parametrize("parts", [(), (STREAM,), (STREAM, TOKEN)])
async def test_the_call_s_own_time_bounds_it_all(parts: tuple[bytes, ...]) -> None:
    async with served(hangs(*parts, alive=bool(parts))) as (server, engine):
        with anyio.fail_after(5), call(0.2) as around:
            code, said = await spent(engine)
            await server.seen[0].gone.wait()
        assert code == "deadline_exceeded"
        assert "total" in said
        assert around.confirmed == 1
        assert 0 < float(server.seen[0].headers["x-request-timeout"]) <= 0.2


async def test_a_call_with_no_time_left_asks_nobody() -> None:
    async with served() as (server, engine):
        with call(0.0):
            assert await spent(engine) == ("deadline_exceeded", "total")
        assert server.seen == []


async def test_time_in_which_the_reader_is_busy_is_no_gap() -> None:
    async with served(gap_s=0.1) as (_, engine):
        with anyio.fail_after(5):
            async for event_ in engine.generate(request()):
                await anyio.sleep(0.06)
                last = event_
    assert isinstance(last, EngineEnd)
    assert last.finish_reason == "stop"


async def test_connecting_has_a_budget_of_its_own() -> None:
    # A listener whose queue is full takes no more connections.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(address)
        engine = open_openai(f"http://127.0.0.1:{address[1]}", model="m", retries=1, connect_s=0.2)
        with anyio.fail_after(5), call() as around:
            assert await spent(engine) == ("deadline_exceeded", "connect")
        assert around.confirmed == 1  # nothing ever reached it
        await engine.aclose()
        for one in crowd:
            one.close()


# -- retries -----------------------------------------------------------------------------------------------


def first(*refusals: bytes) -> Callable[[Seen], Any]:
    """Refuses so many times, and answers then."""
    left = list(refusals)

    async def answer(seen: Seen) -> None:
        if left:
            await seen.send(left.pop(0))
            seen.hang_up()
        else:
            await seen.send(*GOOD)

    return answer


@pytest.mark.parametrize("refusal", [reply(429), reply(502), reply(503), reply(529), b""])
async def test_what_computed_nothing_is_asked_again(refusal: bytes) -> None:
    async with served(first(refusal, refusal), retries=2) as (server, engine):
        assert (await end_of(engine)).output_text == "one two"
    assert len(server.seen) == 3


@pytest.mark.parametrize("refusal", [reply(400), reply(500), reply(504), reply(302, location="/x")])
async def test_what_may_have_computed_or_will_not_change_is_not(refusal: bytes) -> None:
    async with served(first(refusal), retries=2) as (server, engine):
        with pytest.raises(CallError):
            await run(engine)
    assert len(server.seen) == 1


async def test_a_lack_of_quota_does_not_pass_by_waiting() -> None:
    told = {"error": {"message": "", "type": "insufficient_quota", "code": "insufficient_quota"}}
    async with served(first(reply(429, told)), retries=2) as (server, engine):
        with pytest.raises(CallError) as raised:
            await run(engine)
    assert len(server.seen) == 1
    assert not raised.value.retryable


async def test_retries_have_an_end() -> None:
    async with served(first(*[reply(503)] * 9), retries=2) as (server, engine):
        with pytest.raises(CallError) as raised:
            await run(engine)
    assert raised.value.code is ErrorCode.UNAVAILABLE
    assert len(server.seen) == 3


@pytest.mark.parametrize("rest", [(TOKEN,), (event(piece(role="assistant")),)])
async def test_nothing_is_asked_again_once_the_answer_has_begun(rest: tuple[bytes, ...]) -> None:
    async with served(first(b"".join((STREAM, *rest))), retries=2) as (server, engine):
        assert (await end_of(engine)).finish_reason == "error"
    assert len(server.seen) == 1


async def test_a_retry_waits_as_long_as_the_server_asks() -> None:
    async with served(first(reply(429, retry_after="0.3")), retries=1) as (_, engine):
        began = time.monotonic()
        assert (await end_of(engine)).finish_reason == "stop"
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(("left_s", "asked"), [(None, "3600"), (5.0, "6"), (0.4, "0.5")])
async def test_a_retry_that_would_wait_too_long_is_not_made(left_s: float | None, asked: str) -> None:
    async with served(first(reply(429, retry_after=asked)), retries=2) as (server, engine):
        with anyio.fail_after(2), call(left_s), pytest.raises(CallError) as raised:
            await run(engine)
    assert raised.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert raised.value.retry_after_s == float(asked)
    assert len(server.seen) == 1


# -- which model -------------------------------------------------------------------------------------------


def models(*names: str) -> bytes:
    return reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def test_the_server_is_asked_once_which_model_it_has() -> None:
    async def answer(seen: Seen) -> None:
        await seen.send(*([models("/srv/models/fox.gguf")] if seen.method == "GET" else GOOD))

    async with served(answer, model=None) as (server, engine):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(end_of, engine)
        end = await end_of(engine)
    assert [seen.path for seen in server.seen if seen.method == "GET"] == ["/v1/models"]
    assert {seen.body["model"] for seen in server.seen if seen.body} == {"/srv/models/fox.gguf"}
    assert end.engine_id == engine.engine_id == "openai:fox.gguf"
    assert engine.model == "fox.gguf"


@pytest.mark.parametrize(
    ("told", "said"),
    [(models(), "has 0 models"), (models("a", "b"), "has 2 models"), (reply(200, b"[]"), "cannot be read")],
)
async def test_a_list_of_models_that_does_not_decide_says_what_to_do(told: bytes, said: str) -> None:
    async def answer(seen: Seen) -> None:
        await seen.send(told)

    async with served(answer, model=None) as (_, engine):
        with pytest.raises(CallError, match=f"{said}.*name one with [?]model=NAME") as raised:
            await run(engine)
    assert raised.value.code is ErrorCode.FAILED_PRECONDITION


async def test_a_server_without_such_a_list_is_asked_again_by_the_next_call() -> None:
    async with served(first(reply(404)), model=None) as (server, engine):
        with pytest.raises(CallError):
            await run(engine)

        async def answer(seen: Seen) -> None:
            await seen.send(*([models("fox")] if seen.method == "GET" else GOOD))

        server.answer = answer
        assert (await end_of(engine)).engine_id == "openai:fox"


async def test_a_question_that_is_not_answered_has_an_end() -> None:
    async with served(hangs()) as (server, engine):
        lane = engine.upstream
        with anyio.fail_after(5), pytest.raises(CallError, match="first token budget"):
            await lane.ask(engine._list_models, limit_s=0.1)
        with anyio.fail_after(5):
            await server.seen[0].gone.wait()
