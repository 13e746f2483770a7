"""Engines and their KV caches: room before they start, handles while they run, books that agree with them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from penstock import engines
from penstock.calls.caches import CACHES
from penstock.calls.engine_cache import CacheState
from penstock.calls.tasks import TaskOwner
from penstock.engines.base import Engine
from penstock.engines.llamacpp import LlamaEngine
from penstock.engines.scripted import ScriptedEngine
from penstock.errors import CallError, ErrorCode
from penstock.kv import KVHookEvent, KVVeto
from penstock.protocol.events import EngineEnd, EngineRequest, Sampling
from penstock.testing import check_engine, check_events

pytestmark = pytest.mark.anyio

PROMPT = " ".join(f"word{number}" for number in range(40))


def asked(prompt: str = PROMPT, max_tokens: int = 8, **fields: Any) -> EngineRequest:
    return EngineRequest(
        request_id=uuid.uuid4().hex,
        trace_id="t",
        model="m",
        prompt=prompt,
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
        **fields,
    )


def state(engine: Engine) -> CacheState:
    assert engine.kv is not None
    return engine.kv.state()


async def end_of(engine: Engine, request: EngineRequest) -> EngineEnd:
    with anyio.fail_after(60):
        async with aclosing(engine.generate(request)) as events:
            return check_events([event async for event in events], request, engine.engine_id)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(tokens=8, kv_tokens=160)
    yield engine
    engine.close()


async def test_an_engine_with_a_cache_behaves_as_an_engine_should() -> None:
    engine = ScriptedEngine(kv_tokens=1600)
    await check_engine(engine)
    assert state(engine).stats.handles == state(engine).counted_blocks == 0
    engine.close()


async def test_a_prefix_is_found_again_and_told(scripted: ScriptedEngine) -> None:
    first, second = [await end_of(scripted, asked()) for _ in range(2)]
    assert (first.metrics.prefix_hit_rate, second.metrics.prefix_hit_rate) == (0.0, 0.8)
    told = state(scripted)
    assert (told.engine_prompt_tokens, told.engine_cached_tokens) == (80, 32)
    assert [(prefix.num_tokens, prefix.uses) for prefix in told.hottest] == [(32, 1)]
    assert told.stats.handles == 0


async def test_generations_wait_for_room_and_a_left_one_gives_it_back(scripted: ScriptedEngine) -> None:
    tasks = TaskOwner()
    async with aclosing(scripted.generate(asked(max_tokens=100))) as first:
        await anext(first)
        assert state(scripted).stats.handles == 1
        waiting = tasks.start(end_of(scripted, asked(max_tokens=100)))
        await anyio.wait_all_tasks_blocked()
        assert (state(scripted).waiting, scripted.running) == (1, 1)
    with anyio.fail_after(5):
        end = await waiting
    assert end.finish_reason == "stop"
    assert (state(scripted).stats.handles, scripted.running) == (0, 0)


@pytest.mark.parametrize("budget", [0, -1, -(2**63)])
async def test_a_budget_is_at_least_a_token(scripted: ScriptedEngine, budget: int) -> None:
    with pytest.raises(CallError, match="kv_budget_tokens: must be at least 1") as refused:
        await end_of(scripted, asked(kv_budget_tokens=budget))
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_budget_bounds_prompt_and_answer(scripted: ScriptedEngine) -> None:
    end = await end_of(scripted, asked(kv_budget_tokens=45))
    assert (end.finish_reason, len(end.output_tokens)) == ("length", 5)
    with pytest.raises(CallError, match="nothing is left") as refused:
        await end_of(scripted, asked(kv_budget_tokens=40))
    assert refused.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert (await end_of(scripted, asked(kv_budget_tokens=2**100))).finish_reason == "stop"


async def test_what_fits_never_is_refused_at_once(scripted: ScriptedEngine) -> None:
    with pytest.raises(CallError, match="holds 160") as refused:
        await end_of(scripted, asked(max_tokens=161))
    assert (refused.value.code, refused.value.retryable) == (ErrorCode.RESOURCE_EXHAUSTED, False)


async def test_a_hook_sees_the_call_and_may_forbid_it(scripted: ScriptedEngine) -> None:
    seen: list[KVHookEvent] = []

    def look(event: KVHookEvent) -> KVVeto | None:
        seen.append(event)
        return KVVeto("too long for today") if event.num_tokens > 50 else None

    assert scripted.kv is not None
    scripted.kv.hooks.on("before_allocate", look)
    scripted.kv.hooks.on("after_free", look)
    request = asked()
    await end_of(scripted, request)
    assert [(event.point.value, event.request_id) for event in seen] == [
        ("before_allocate", request.request_id),
        ("after_free", request.request_id),
    ]
    assert seen[0].num_tokens == 48
    with pytest.raises(CallError, match="a hook forbade to allocate: too long for today"):
        await end_of(scripted, asked(max_tokens=20))
    assert (state(scripted).stats.handles, state(scripted).counted_blocks, scripted.started) == (0, 0, 1)


async def test_a_cache_is_listed_while_its_engine_is_open() -> None:
    engine = engines.open("scripted:kv_tokens=160")
    assert engine.kv in tuple(CACHES)
    await engine.aclose()
    assert engine.kv not in tuple(CACHES)
    assert engines.open("scripted").kv is None


async def test_the_books_say_what_llama_cpp_does(llama: LlamaEngine) -> None:
    before = state(llama)
    prompt = f"{uuid.uuid4().hex} {PROMPT} {PROMPT}"
    ends = [await end_of(llama, asked(prompt)) for _ in range(2)]
    after = state(llama)
    told, asked_for = (
        after.engine_cached_tokens - before.engine_cached_tokens,
        after.engine_prompt_tokens - before.engine_prompt_tokens,
    )
    found = after.stats.reused_tokens - before.stats.reused_tokens
    assert ends[0].metrics.prefix_hit_rate < 0.2  # the beginning of the id may be like another
    assert ends[1].metrics.prefix_hit_rate > 0.9
    assert after.stats.queried_tokens - before.stats.queried_tokens == asked_for
    # Blocks are whole, and llama.cpp reads the last token anew.
    assert 0 <= told - found <= 2 * 16
    assert after.stats.handles == after.counted_blocks == 0
    assert ends[1].metrics.kv_used_tokens == asked_for // 2 + len(ends[1].output_tokens)


async def test_a_chat_is_found_by_the_next_turn(llama: LlamaEngine) -> None:
    turns = [{"role": "user", "content": f"{uuid.uuid4().hex} What color is the sky?"}]
    first = asked("", 24, messages=tuple(turns))
    said = (await end_of(llama, first)).output_text
    before = state(llama).stats.reused_tokens
    turns += [{"role": "assistant", "content": said}, {"role": "user", "content": "And the sea?"}]
    end = await end_of(llama, asked("", messages=tuple(turns)))
    assert state(llama).stats.reused_tokens - before >= 48  # the whole first prompt, and of its answer
    assert end.metrics.prefix_hit_rate > 0.5


async def test_the_capacity_of_llama_cpp_is_its_context_times_its_slots(llama: LlamaEngine) -> None:
    settings = llama.settings
    assert llama.kv is not None
    assert llama.kv.num_tokens == settings.slots * settings.context_tokens
    assert llama.kv.name.startswith("llamacpp:smollm2-135m")
