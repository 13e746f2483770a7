"""What engines behind HTTP owe the calls they work for: connections of their own, and the time they have."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest

from behaviour.checks import happened, until
from behaviour.cutting import HALF, ITEMS
from behaviour.cutting_engines import Below, Played
from behaviour.promises import promise
from behaviour.served import Connect
from engines.upstreams.server import Seen
from penstock import Runtime, current_call
from penstock.engines.openai import open_openai
from penstock.testing import FakeClock, Journal

pytestmark = pytest.mark.anyio

CALLS, AT_ONCE = 120, 24


@pytest.fixture(scope="module")
async def below(anyio_backend: object) -> AsyncIterator[Below]:
    """What is below the engines: each is started when it is first asked for."""
    async with AsyncExitStack() as stack:
        yield Below(stack)


@promise("P40", "P8")
@pytest.mark.parametrize("engine", ["sglang", "openai", "anthropic"])
async def test_what_a_cancelled_call_was_told_is_heard_by_no_other(
    connect_http: Connect, below: Below, engine: str
) -> None:
    """Two of three calls are cancelled in the middle, all on one engine and its pool of connections."""
    played, rt = await below.project(engine), Runtime()
    assert isinstance(played, Played)
    upstream, told = played.upstream, Journal()
    upstream.gate.hold(after=HALF)
    upstream.seen.clear()

    @rt.streaming_command("predict", concurrency=AT_ONCE)
    async def predict(prompt: str, tokens: int):
        said = ""
        async with aclosing(played.pieces(prompt, tokens)) as pieces:
            async for piece in pieces:
                said += piece
                yield {"chunk": piece}
                if said.count("#") == HALF:
                    told.record(prompt)

    async with connect_http(rt) as way:

        async def one(number: int) -> None:
            prompt, cut = f"p{number}", number % 3 > 0
            call = await way.open("predict", {"prompt": prompt, "tokens": ITEMS if cut else HALF})
            await told.wait(prompt)
            if cut:
                await call.cancel()
            frames = await call.frames()
            assert frames[-1]["status"] == ("cancelled" if cut else "completed")
            text = "".join(frame["data"]["chunk"] for frame in frames[1:-1])
            assert text == "".join(f"{prompt}#{n} " for n in range(HALF))

        for first in range(0, CALLS, AT_ONCE):
            await asyncio.gather(*(one(number) for number in range(first, first + AT_ONCE)))
        await until(lambda: not played.working, lambda: played.working)
    await until(lambda: not _held(played), lambda: _held(played))
    _check_connections(played)


def _asked(played: Played) -> list[Seen]:
    return [seen for seen in played.upstream.seen if played.upstream.is_call(seen)]


def _number(seen: Seen) -> int:
    found = re.search(rb'"p(\d+)"', seen.body)
    assert found is not None
    return int(found[1])


def _held(played: Played) -> list[Seen]:
    """Return the requests of cancelled calls whose connections are still open."""
    return [seen for seen in _asked(played) if _number(seen) % 3 and not seen.connection.lost.is_set()]


def _check_connections(played: Played) -> None:
    """Check that a cancelled call's request was the last on its connection, and others' were not always."""
    asked = _asked(played)
    assert sorted(map(_number, asked)) == list(range(CALLS))
    last = {seen.connection: seen for seen in played.upstream.seen}
    assert all(last[seen.connection] is seen for seen in asked if _number(seen) % 3)
    assert any(last[seen.connection] is not seen for seen in asked)


@promise("P10")
async def test_an_engine_is_told_how_much_time_remains(connect_http: Connect, below: Below) -> None:
    played, rt, clock = await below.project("openai"), Runtime(), FakeClock()
    assert isinstance(played, Played)
    played.upstream.gate.open()
    played.upstream.seen.clear()
    waiting, go = asyncio.Event(), asyncio.Event()

    @rt.command("predict")
    async def predict():
        waiting.set()
        await go.wait()
        text = [piece async for piece in played.pieces("fox")]
        return [current_call().remaining(), *text]

    async with connect_http(rt, clock=clock) as way:
        call = await way.open("predict", timeout=10)
        await happened(waiting)
        clock.advance(4.0)
        go.set()
        assert (await call.last())["data"][0] == 6.0
        unbounded = await way.ask("predict")
        assert unbounded["data"][0] is None
    first, second = played.upstream.seen
    assert 5.0 < float(first.headers["x-request-timeout"]) <= 6.0
    assert "x-request-timeout" not in second.headers


@promise("P10")
async def test_an_engine_s_own_patience_ends_with_the_call_s_time(
    connect_http: Connect, below: Below
) -> None:
    """Where the event loop's clock comes to the end before the call's own does: it is the same budget."""
    played, rt = await below.project("openai"), Runtime()
    assert isinstance(played, Played)
    played.upstream.gate.hold(after=1)
    engine = open_openai(played.upstream.url, model="played", first_token_s=60, gap_s=60)

    @rt.streaming_command("predict")
    async def predict():
        async for piece in engine.stream_text("fox", max_tokens=ITEMS):
            yield {"chunk": piece}

    async with engine, connect_http(rt, clock=FakeClock()) as way:
        call = await way.open("predict", timeout=0.2)
        await call.until("streaming")
        frame = await call.last()
        assert (frame["status"], frame["code"]) == ("error", "deadline_exceeded")
        assert "total budget" in frame["error"]
        await until(lambda: not played.working, lambda: played.working)
