"""The KV cache of an engine, at the level of calls over HTTP: who starts, who waits, who is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from behaviour.raw_http import Address, Connection, Reply
from behaviour.served import hosted
from penstock.calls.engine_cache import EngineCache
from penstock.engine_commands import serve_engine
from penstock.engines.scripted import ScriptedEngine
from penstock.kv import KVHookEvent, KVHookPoint, KVVeto
from penstock.protocol.kv import KVAllocateParams, KVDType, KVLayout
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio


class Served:
    """An engine whose answers end when they are let go of, behind a server."""

    def __init__(self, engine: ScriptedEngine, address: Address) -> None:
        self.engine = engine
        self.address = address

    @property
    def kv(self) -> EngineCache:
        assert self.engine.kv is not None
        return self.engine.kv

    @property
    def used(self) -> tuple[int, int, int]:
        """Handles, blocks that are counted, and calls that wait."""
        state = self.kv.state()
        return state.stats.handles, state.counted_blocks, state.waiting

    async def start(self, command: str, input_: dict[str, Any], **fields: Any) -> Connection:
        """Send a call; its answer is still to be read."""
        connection = await Connection.open(self.address)
        body = {"command": command, "input": input_, **fields}
        connection.request("POST", "/v2/execute", json.dumps(body).encode())
        return connection

    async def ask(self, command: str, input_: dict[str, Any], **fields: Any) -> Reply:
        connection = await self.start(command, input_, **fields)
        reply = await connection.reply()
        await connection.aclose()
        return reply

    async def until(self, used: tuple[int, int, int]) -> None:
        """Return once so much is used."""
        with anyio.fail_after(10):
            while self.used != used:
                await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def serving(tokens: int = 64, **script: Any) -> AsyncIterator[Served]:
    engine = ScriptedEngine(**{"tokens": 4, "kv_tokens": tokens, **script})
    runtime = Runtime()
    serve_engine(runtime, engine)
    app = App(runtime)
    async with hosted(app) as (_, address):
        yield Served(engine, address)
    assert engine.kv is not None
    state = engine.kv.state()
    assert (state.counted_blocks, state.waiting) == (0, 0)


@pytest.fixture
async def stalling() -> AsyncIterator[Served]:
    """Answers of one token, which then hang until they are cancelled."""
    async with serving(tokens=256, fault="stall", after=1) as served:
        yield served
        assert served.used == (0, 0, 0)


def request(**fields: Any) -> dict[str, Any]:
    return {
        "request": {
            "request_id": "mine",
            "trace_id": "t",
            "model": "m",
            "prompt": "one two three",
            "max_tokens": 4,
            "stream": True,
            **fields,
        }
    }


async def test_a_call_holds_its_room_and_the_next_one_waits(stalling: Served) -> None:
    first = await stalling.start("predict", {"prompt": "a b c", "max_tokens": 250}, is_stream=True)
    await stalling.until((1, 0, 0))
    second = await stalling.start("predict", {"prompt": "a b c", "max_tokens": 150}, is_stream=True)
    await stalling.until((1, 0, 1))
    await first.aclose()  # its client leaves
    await stalling.until((1, 0, 0))
    await second.aclose()
    await stalling.until((0, 0, 0))


async def test_a_cancel_frees_what_waits_and_what_runs(stalling: Served) -> None:
    asked = {"prompt": "a", "max_tokens": 250}
    calls = [await stalling.start("predict", asked, is_stream=True, task_id=name) for name in "abc"]
    await stalling.until((1, 0, 1))  # the third waits behind the second
    for name in "cab":
        connection = await Connection.open(stalling.address)
        connection.request("POST", f"/tasks/{name}/cancel", b"{}")
        assert (await connection.reply()).status == 200
        await connection.aclose()
    await stalling.until((0, 0, 0))
    for call in calls:
        last = json.loads((await call.reply()).body.splitlines()[-1])
        assert (last["status"], last["reason"]) == ("cancelled", "caller")
        await call.aclose()


@pytest.mark.parametrize("is_stream", [True, False])
async def test_what_fits_never_is_refused_before_it_starts(is_stream: bool) -> None:
    async with serving() as served:
        reply = await served.ask("predict", {"prompt": "a", "max_tokens": 10**15}, is_stream=is_stream)
        said = json.loads(reply.body)
        assert (reply.status, said["code"], said["retryable"]) == (429, "resource_exhausted", False)
        assert "the KV cache of scripted holds 64" in said["error"]
        assert "retry-after" not in reply.headers
        assert served.engine.started == 0


async def test_a_full_queue_is_told_with_the_measured_time(stalling: Served) -> None:
    asked = {"prompt": "a", "max_tokens": 250}
    calls = []
    try:
        for _ in range(257 + 1):  # what the queue of a command holds, and the one that runs
            calls.append(await stalling.start("predict", asked, is_stream=True))
            if len(calls) == 1:
                await stalling.until((1, 0, 0))
        refused = [call for call in calls if (await call.head()).status == 429]
        assert len(refused) == 1
        said = json.loads(await refused[0].body())
        assert said["code"] == "resource_exhausted"
        assert "0 of 256 tokens of KV cache left, 256 waiting" in said["error"]
        assert 1 <= said["retry_after_s"] <= 60
    finally:
        for call in reversed(calls):
            await call.aclose()
    await stalling.until((0, 0, 0))


@pytest.mark.parametrize("budget", [0, -1, -(2**70), 1.5, "many", [16]])
async def test_a_budget_that_is_none_is_refused(budget: object) -> None:
    async with serving() as served:
        reply = await served.ask("generate", request(kv_budget_tokens=budget))
        assert (reply.status, json.loads(reply.body)["code"]) == (400, "invalid_argument")
        assert served.engine.started == 0


@pytest.mark.parametrize(
    ("budget", "tokens"), [(4, 1), (5, 2), (64, 4), (65, 4), (2**64, 4), (10**300, 4)], ids=str
)
async def test_a_budget_bounds_the_answer(budget: int, tokens: int) -> None:
    async with serving() as served:
        reply = await served.ask("generate", request(kv_budget_tokens=budget))
        assert reply.status == 200
        end = json.loads(reply.body)["data"]
        assert len(end["output_tokens"]) == tokens
        assert end["finish_reason"] == ("length" if budget < 7 else "stop")
        assert served.used == (0, 0, 0)


async def test_a_budget_lets_in_what_would_be_too_large_without() -> None:
    async with serving() as served:
        large = {"max_tokens": 10**9}
        assert (await served.ask("generate", request(**large))).status == 429
        assert (await served.ask("generate", request(**large, kv_budget_tokens=64))).status == 200
        refused = await served.ask("generate", request(**large, kv_budget_tokens=3))
        assert (refused.status, json.loads(refused.body)["retryable"]) == (429, False)


async def test_a_hook_refuses_with_its_reason_and_one_that_raises_does_not() -> None:
    async with serving() as served:

        def fail(event: KVHookEvent) -> None:
            raise RuntimeError("ouch")

        for point in KVHookPoint:
            served.kv.hooks.on(point, fail)
        assert (await served.ask("predict", {"prompt": "a", "max_tokens": 4})).status == 200
        end = served.kv.hooks.on("before_allocate", lambda event: KVVeto("not on Fridays"))
        reply = await served.ask("predict", {"prompt": "a", "max_tokens": 4})
        said = json.loads(reply.body)
        assert (reply.status, said["code"]) == (409, "failed_precondition")
        assert said["error"] == "a hook forbade to allocate: not on Fridays"
        end()
        assert (await served.ask("predict", {"prompt": "a", "max_tokens": 4})).status == 200


async def test_a_hook_that_reenters_is_refused_there_and_the_call_goes_on() -> None:
    async with serving() as served:
        codes: list[str] = []

        def reenter(event: KVHookEvent) -> None:
            with served.kv.locked() as pool:
                try:
                    pool.evict(1)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                    codes.append(getattr(error, "code", repr(error)))

        served.kv.hooks.on("before_allocate", reenter)
        served.kv.hooks.on("after_free", reenter)
        assert (await served.ask("predict", {"prompt": "a", "max_tokens": 4})).status == 200
        assert codes == ["failed_precondition"] * 2


async def test_where_everything_is_pinned_calls_are_refused_and_not_kept_waiting() -> None:
    async with serving() as served:
        params = KVAllocateParams(
            request_id="operator",
            num_tokens=60,
            kv_dtype=KVDType.FP16,
            layout=KVLayout.BSHD,
            block_size=16,
        )
        with served.kv.locked() as pool:
            handle = pool.allocate(params)
            pool.pin(handle)
        reply = await served.ask("predict", {"prompt": "a", "max_tokens": 4}, is_stream=True)
        said = json.loads(reply.body)
        assert (reply.status, said["code"], said["retryable"]) == (429, "resource_exhausted", True)
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        with served.kv.locked() as pool:
            pool.unpin(handle)
            pool.free(handle)
        assert (await served.ask("predict", {"prompt": "a", "max_tokens": 4})).status == 200
