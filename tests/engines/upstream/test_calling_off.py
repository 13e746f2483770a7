"""When a server is told that an answer is no longer wanted, and when it must not be."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest

from engines.upstream.raw import END, STREAM, RawServer, Seen, event, reply
from engines.upstream.talk import DONE, call, end_of, good, hangs, piece, request, run, served
from penstock.engines.openai import Asker, OpenAIEngine
from penstock.engines.openai_address import Address
from penstock.engines.upstream.engine import Question
from penstock.engines.upstream.patience import Deadlines, Patience
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineRequest

pytestmark = pytest.mark.anyio

TOKEN = event(piece("one "))
FAULT = event({"error": {"message": "it went wrong"}})


class Telling(OpenAIEngine):
    """Needs more than a closed connection to stop."""

    fault: CallError | None = None
    stopped = True
    deaf = False

    def __init__(self, url: str, **patience: Any) -> None:
        super().__init__(Address(f"{url}/v1", "m"), patience=Patience(retries=0, **patience))
        self.called_off: list[str] = []

    async def call_off(self, request: EngineRequest) -> bool:
        self.called_off.append(request.request_id)
        if self.deaf:
            await anyio.sleep_forever()
        if self.fault is not None:
            raise self.fault
        return self.stopped


@asynccontextmanager
async def telling(answer: Any, **patience: Any) -> AsyncIterator[tuple[RawServer, Telling]]:
    async with RawServer(answer) as server:
        engine = Telling(server.url, **patience)
        try:
            yield server, engine
        finally:
            await engine.aclose()


def sends(*parts: bytes) -> Any:
    async def answer(seen: Seen) -> None:
        await seen.send(*parts)
        seen.hang_up()

    return answer


async def outcome(engine: Telling, asked: EngineRequest) -> str:
    """The code a call ends with, or its reason."""
    try:
        end = await end_of(engine, asked)
    except CallError as error:
        return error.code.value
    return end.finish_reason if end.error is None else end.error.code


@pytest.mark.parametrize(
    "answer",
    [
        good,
        sends(reply(400)),
        sends(reply(500)),
        sends(b""),
        sends(STREAM, FAULT),
        sends(STREAM, TOKEN, FAULT),
        sends(STREAM, TOKEN),
        sends(STREAM, TOKEN, event(piece(None, "length"))),
        sends(STREAM, TOKEN, END),
    ],
)
async def test_what_has_come_to_its_end_is_never_called_off(answer: Any) -> None:
    async with telling(answer) as (_, engine):
        with call() as around:
            assert await outcome(engine, request()) != "internal"
        assert engine.called_off == []
        assert around.confirmed == 1


@pytest.mark.parametrize(
    ("answer", "patience"),
    [
        (hangs(), {"first_token_s": 0.1}),
        (hangs(STREAM), {"first_token_s": 0.1}),
        (hangs(STREAM, TOKEN), {"gap_s": 0.1}),
        (hangs(STREAM, TOKEN, event(piece("x", id="another"))), {}),
        (hangs(STREAM, TOKEN, event(b"{no json")), {}),
    ],
)
async def test_what_was_given_up_is_called_off_once(answer: Any, patience: dict[str, float]) -> None:
    asked = request()
    async with telling(answer, **patience) as (_, engine):
        with call() as around:
            assert await outcome(engine, asked) in ("deadline_exceeded", "upstream_failed")
        assert engine.called_off == [asked.request_id]
        assert around.confirmed == 1


async def leave(engine: Telling) -> None:
    async with aclosing(engine.generate(request())) as events:
        async for told in events:
            if type(told) is EngineDelta:
                return


async def test_what_was_left_is_called_off_after_its_connection_is_closed() -> None:
    async with telling(hangs(STREAM, TOKEN)) as (server, engine):
        with anyio.fail_after(5), call() as around:
            await leave(engine)
            await server.seen[0].gone.wait()
        assert len(engine.called_off) == 1
        assert around.confirmed == 1


async def test_what_was_never_sent_is_not_called_off() -> None:
    async with telling(good) as (_, engine):
        events = engine.generate(request())
        await events.aclose()
        with call(0.0), pytest.raises(CallError):
            await run(engine)
        assert engine.called_off == []


async def test_a_server_that_does_not_say_that_it_stopped_confirms_nothing() -> None:
    async with telling(hangs(STREAM, TOKEN)) as (server, engine):
        engine.stopped = False
        with anyio.fail_after(5), call() as around:
            await leave(engine)
        assert around.confirmed == 0
        server.answer = good
        assert (await end_of(engine)).finish_reason == "stop"


async def test_a_server_that_cannot_be_told_to_stop_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with telling(hangs(STREAM, TOKEN)) as (server, engine):
        engine.fault = CallError("it is gone", ErrorCode.UNAVAILABLE)
        with anyio.fail_after(5), call() as around, caplog.at_level(logging.WARNING, "penstock.engines"):
            await leave(engine)
        assert around.confirmed == 0
        assert "could not be told to stop: it is gone" in caplog.text
        server.answer = good
        assert (await end_of(engine)).finish_reason == "stop"


async def test_telling_a_server_to_stop_has_a_bound() -> None:
    async with telling(hangs(STREAM, TOKEN), close_s=0.1) as (server, engine):
        engine.deaf = True
        with anyio.fail_after(5), call() as around:
            await leave(engine)
        assert around.confirmed == 0
        server.answer = good
        assert (await end_of(engine)).finish_reason == "stop"


async def test_a_client_that_fails_after_the_answer_leaves_no_connection_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served(hangs(STREAM, TOKEN)) as (server, engine):
        whole = engine.question

        async def question(asked: EngineRequest, deadlines: Deadlines) -> Question[Asker]:
            sent, reading = await whole(asked, deadlines)

            async def send(asker: Asker) -> None:
                await sent(asker)
                raise engine._library.OpenAIError("too clever")

            return Question(send, reading)

        monkeypatch.setattr(engine, "question", question)
        with anyio.fail_after(5):
            with pytest.raises(CallError) as raised:
                await run(engine)
            await server.seen[0].gone.wait()
        assert raised.value.code is ErrorCode.UPSTREAM_FAILED
        monkeypatch.undo()
        server.answer = sends(STREAM, TOKEN, event(piece(None, "stop")), DONE, END)
        assert (await end_of(engine)).finish_reason == "stop"
