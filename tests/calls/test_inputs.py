"""Input streams: items in order, bounded, checked, ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from penstock.calls.inputs import MAX_WAITING, InputStream
from penstock.calls.live import Live
from penstock.errors import AuthoringError, CallError, ErrorCode
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio


def shouting() -> Runtime:
    runtime = Runtime()

    @runtime.streaming_command("shout")
    async def shout(words: AsyncIterator[str], mark: str = "!") -> AsyncIterator[str]:
        async for word in words:
            yield word.upper() + mark

    @runtime.command("plain")
    async def plain() -> None: ...

    return runtime


async def items_of(live: Live) -> list[Any]:
    found = []
    with anyio.fail_after(5):
        async with live.reader() as reader:
            async for batch in reader:
                found += [frame for frame in map(json.loads, batch.lines) if frame["status"] == "streaming"]
    return [frame["data"] for frame in found]


async def test_items_arrive_in_order_with_what_came_at_the_start_first() -> None:
    async with App(shouting()) as app:
        start = Start(command="shout", input=b'{"words": ["a"]}', is_stream=True, more_input=True)
        live = await app.open(start, LOCAL)
        live.send(b'"b"')
        live.send(b'"c"')
        live.end_input()
        assert await items_of(live) == ["A!", "B!", "C!"]


async def test_without_more_input_the_request_is_the_whole_stream() -> None:
    async with App(shouting()) as app:
        live = await app.open(Start(command="shout", input=b'{"words": ["a"]}', is_stream=True), LOCAL)
        with pytest.raises(CallError, match="has ended"):
            live.send(b'"b"')
        assert await items_of(live) == ["A!"]


async def test_a_bad_item_is_refused_and_the_call_goes_on() -> None:
    async with App(shouting()) as app:
        live = await app.open(Start(command="shout", is_stream=True, more_input=True), LOCAL)
        with pytest.raises(CallError) as refused:
            live.send(b"3")
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT
        assert refused.value.details[0]["path"] == ["data"]
        live.send(b'"b"')
        live.end_input()
        assert await items_of(live) == ["B!"]


async def test_only_commands_that_take_a_stream_are_sent_items() -> None:
    async with App(shouting()) as app:
        live = await app.open(Start(command="plain", more_input=True), LOCAL)
        with pytest.raises(CallError, match="takes no input stream"):
            live.send(b"1")


async def test_the_schema_shows_a_list() -> None:
    async with App(shouting()) as app:
        schema = (await app.describe()).commands["shout"].input_schema
        assert schema["properties"]["words"]["items"] == {"type": "string"}
        assert "required" not in schema


async def test_what_waits_is_bounded() -> None:
    stream = InputStream("words", json.loads)
    for number in range(MAX_WAITING):
        stream.send(b"%d" % number)
    with pytest.raises(CallError) as refused:
        stream.send(b"-1")
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    stream.end()
    assert [item async for item in stream] == list(range(MAX_WAITING))


def test_a_blocking_function_cannot_take_a_stream() -> None:
    with pytest.raises(AuthoringError, match="must be an async function"):

        @Runtime().command("bad")
        def bad(words: AsyncIterator[str]) -> None: ...


def test_a_command_takes_one_stream() -> None:
    runtime = Runtime()

    @runtime.command("two")
    async def two(left: AsyncIterator[str], right: AsyncIterator[str]) -> None: ...

    with pytest.raises(AuthoringError, match="several streams"):
        runtime.bound_commands()
