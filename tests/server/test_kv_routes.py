"""What is told about KV caches over HTTP: numbers without texts, events to be read on, to admins only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from jsonschema import Draft202012Validator

from behaviour.keyring import ANNA, EVERYBODY, METRICS, ROOT, STRANGER, write_keys
from behaviour.raw_http import Address, Connection
from behaviour.served import hosted
from penstock.calls.engine_cache import EngineCache
from penstock.engine_commands import serve_engine
from penstock.engines.scripted import ScriptedEngine
from penstock.kv import NumberedEvent, PrefixIndex, read_ndjson_line
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

STORY = " ".join(f"word{number}" for number in range(40))
NAME = "scripted-routes"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[EngineCache, Address]]:
    engine = ScriptedEngine(tokens=4, kv_tokens=96, engine_id=NAME)
    assert engine.kv is not None
    runtime = Runtime()
    serve_engine(runtime, engine)
    async with hosted(App(runtime), **settings) as (_, address):
        yield engine.kv, address


async def ask(address: Address, method: str, path: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}") as http:
        return await http.request(method, path, **more)


async def predict(address: Address, prompt: str = STORY) -> None:
    asked = {"command": "predict", "input": {"prompt": prompt, "max_tokens": 4}}
    reply = await ask(address, "POST", "/v2/execute", json=asked)
    assert reply.status_code == 200, reply.text


def shown(body: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of the engine of this test; others may be open in the process."""
    engine: dict[str, Any] = next(each for each in body["engines"] if each["engine"] == NAME)
    return engine


async def test_numbers_are_shown_and_no_text() -> None:
    async with serving() as (_, address):
        for _ in range(3):
            await predict(address)
        reply = await ask(address, "GET", "/v2/kv")
        document = (await ask(address, "GET", "/openapi.json")).json()
    engine = shown(reply.json())
    assert engine["devices"] == [
        {"device": "cpu", "num_blocks": 6, "held": 0, "reusable": 2, "blank": 4, "cached": 2}
    ]
    assert (engine["queried_tokens"], engine["reused_tokens"]) == (120, 64)
    assert (engine["engine_prompt_tokens"], engine["engine_cached_tokens"]) == (120, 64)
    assert engine["prefix_hit_rate"] == engine["engine_hit_rate"] == pytest.approx(64 / 120)
    [hottest] = engine["hottest"]
    assert (hottest["num_tokens"], hottest["uses"]) == (32, 2)
    assert engine["handles"] == engine["waiting"] == engine["kept_blocks"] == 0
    assert engine["drain_tokens_per_s"] > 0
    assert "word1" not in reply.text
    schema = {"$ref": "#/components/schemas/KvCaches", "components": document["components"]}
    Draft202012Validator(schema).validate(reply.json())


async def lines(connection: Connection, count: int) -> list[NumberedEvent]:
    """Return the next events of a stream."""
    found: list[NumberedEvent] = []
    while len(found) < count:
        found += map(read_ndjson_line, (await connection.piece()).splitlines())
    assert len(found) == count
    return found


async def follow(address: Address, query: str = "", **headers: str) -> Connection:
    connection = await Connection.open(address)
    connection.request("GET", f"/v2/kv/events?engine={NAME}{query}", headers=headers)
    head = await connection.head("GET")
    assert (head.status, head.headers["content-type"]) == (200, "application/x-ndjson")
    return connection


async def test_events_tell_what_is_cached_and_can_be_read_on() -> None:
    async with serving() as (cache, address):
        await predict(address)
        first = await follow(address)
        index = PrefixIndex()
        for event in await lines(first, 1):
            index.apply(event)
        await predict(address, STORY.upper())
        await predict(address, STORY.title())  # and for that something is evicted
        for event in await lines(first, cache.events.next_seq - index.next_seq):
            index.apply(event)
        await first.aclose()
        with cache.locked() as pool:
            assert index.hashes("cpu") == set(pool.snapshot()[1]["cpu"])
        again = await follow(address, f"&after={index.next_seq - 3}")
        assert [event.seq for event in await lines(again, 2)] == [index.next_seq - 2, index.next_seq - 1]
        await again.aclose()
        resumed = await follow(address, **{"last-event-id": f"{index.next_seq - 2}"})
        assert [event.seq for event in await lines(resumed, 1)] == [index.next_seq - 1]
        await resumed.aclose()


async def test_they_come_as_server_sent_events_too() -> None:
    async with serving() as (_, address):
        await predict(address)
        connection = await Connection.open(address)
        accept = {"accept": "text/event-stream"}
        connection.request("GET", f"/v2/kv/events?engine={NAME}", headers=accept)
        assert (await connection.head("GET")).headers["content-type"] == "text/event-stream"
        text = (await connection.piece()).decode()
        await connection.aclose()
    assert text.startswith("id: 0\ndata: {")
    assert read_ndjson_line(text.splitlines()[1].removeprefix("data: ").encode()).seq == 0


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        (f"engine={NAME}&after=5", 410, "gone"),
        (f"engine={NAME}&after=-2", 400, "invalid_argument"),
        (f"engine={NAME}&after=x", 400, "invalid_argument"),
        (f"engine={NAME}&after=99999999999999999999", 400, "invalid_argument"),
        ("engine=nobody", 404, "not_found"),
        ("engine=", 404, "not_found"),
    ],
)
async def test_what_is_not_there_is_refused(query: str, status: int, code: str) -> None:
    async with serving() as (_, address):
        reply = await ask(address, "GET", f"/v2/kv/events?{query}")
        assert (reply.status_code, reply.json()["code"]) == (status, code)
        assert (await ask(address, "HEAD", f"/v2/kv/events?{query}")).status_code == status
        assert status != 410 or reply.json()["first_seq"] == 0
        assert (await ask(address, "HEAD", f"/v2/kv/events?engine={NAME}")).status_code == 200
        assert (await ask(address, "POST", "/v2/kv")).status_code == 405


async def test_a_reader_that_is_too_slow_is_told_so() -> None:
    async with serving() as (cache, address):
        slow = await follow(address)
        await predict(address)
        await lines(slow, 1)
        with cache.locked() as pool:  # within one turn of the server's loop
            for _ in range(10_002):
                pool.clear()
        last = json.loads((await slow.piece()).splitlines()[-1])
        assert (last["status"], last["code"]) == ("error", "gone")
        assert last["first_seq"] == cache.events.first_seq
        assert await slow.piece() == b""
        await slow.aclose()


async def test_the_stream_ends_with_the_engine() -> None:
    async with serving() as (_, address):
        connection = await follow(address)
    with anyio.fail_after(5):
        assert await connection.piece() == b""
    await connection.aclose()


async def test_they_are_for_admins(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", *EVERYBODY)
    async with serving(auth_keys=keys) as (_, address):
        for path in ("/v2/kv", f"/v2/kv/events?engine={NAME}"):
            for holder, status in ((ANNA, 403), (METRICS, 403), (STRANGER, 401), (ROOT, 200)):
                reply = await ask(address, "HEAD", path, headers=holder.headers)
                assert reply.status_code == status, (path, holder.key.name)
