"""What is told of llama.cpp's slots is what it finds there, by its own counts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from penstock.calls import ambient
from penstock.engines.llamacpp import LlamaEngine
from penstock.engines.llamacpp_server import LlamaServer, LlamaSettings, OnChunk
from penstock.kv.held import AskedPrefix, HeldPrefixes
from penstock.kv.prompts import read_prompt
from penstock.protocol.events import EngineEnd, EngineRequest, Sampling

pytestmark = pytest.mark.anyio

TENANTS = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def few_slots(model_path: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(model_path, "m", LlamaSettings(slots=2, context_tokens=512, prompt_cache_mib=0))
    yield engine
    engine.close()


def messages(tenant: str, question: str) -> list[dict[str, str]]:
    told = f"You work for the house of the {tenant}. " + f"Never harm any {tenant}. " * 25
    return [{"role": "system", "content": told}, {"role": "user", "content": question}]


def request(talk: list[dict[str, str]], max_tokens: int = 2) -> EngineRequest:
    return EngineRequest(
        request_id="r",
        trace_id="t",
        model="m",
        max_tokens=max_tokens,
        messages=tuple(talk),
        sampling=Sampling(temperature=0),
    )


async def ask(engine: LlamaEngine, held: HeldPrefixes, talk: list[dict[str, str]]) -> EngineEnd:
    """Answer, as in a call whose gateway wants to know what is held."""
    ambient.asked_prefix.set(AskedPrefix(held, json.dumps({"messages": talk}).encode()))
    with anyio.fail_after(60):
        async with aclosing(engine.generate(request(talk))) as events:
            async for event in events:
                if isinstance(event, EngineEnd):
                    return event
    raise AssertionError("no end")


def told(held: HeldPrefixes, talk: list[dict[str, str]]) -> float:
    """Return how much of a conversation is said to be held."""
    prompt = read_prompt(json.dumps({"messages": talk}).encode())
    assert prompt is not None
    known = set(held.snapshot().held)
    chain = prompt.chain()
    return sum(name in known for name in chain) / len(chain)


async def test_it_finds_what_was_told_and_nothing_else(few_slots: LlamaEngine) -> None:
    held, order = HeldPrefixes(), random.Random(5)
    found = []
    for number in range(9):
        talk = messages(order.choice(TENANTS), f"What is {number}?")
        before = told(held, talk)
        end = await ask(few_slots, held, talk)
        assert end.metrics.prefix_hit_rate is not None
        found.append((before, end.metrics.prefix_hit_rate))
        assert told(held, talk) == 1.0
    assert all((before > 0.8) == (hit > 0.8) for before, hit in found), found
    assert {before > 0.8 for before, _ in found} == {True, False}


async def test_the_next_turn_finds_the_answer_too(few_slots: LlamaEngine) -> None:
    held = HeldPrefixes()
    talk = messages("dog", "Say a word." + " Please." * 60)
    end = await ask(few_slots, held, talk)
    following = [*talk, {"role": "assistant", "content": end.output_text}]
    assert told(held, following) == 1.0
    after = await ask(few_slots, held, [*following, {"role": "user", "content": "Another."}])
    assert after.metrics.prefix_hit_rate is not None
    assert after.metrics.prefix_hit_rate > 0.9


class Cut:
    """llama.cpp, which stops after its first word about a prompt."""

    def __init__(self, server: LlamaServer) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def complete(self, body: dict[str, Any], on_chunk: OnChunk) -> None:
        self._server.complete(body, lambda chunk: on_chunk(chunk) or True)


async def test_a_prompt_that_was_not_read_to_its_end_is_not_told(
    few_slots: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, talk = HeldPrefixes(), messages("eel", "What?")
    await ask(few_slots, held, messages("eel", "Who?"))
    assert told(held, talk) > 0.8
    monkeypatch.setattr(few_slots, "_server", Cut(few_slots._server))
    assert (await ask(few_slots, held, talk)).finish_reason == "error"
    assert told(held, talk) == 0.0


async def test_a_closed_engine_holds_nothing(model_path: Path) -> None:
    held = HeldPrefixes()
    engine = LlamaEngine(model_path, "m", LlamaSettings(slots=1, context_tokens=512, prompt_cache_mib=0))
    try:
        await ask(engine, held, messages("fox", "What?"))
        assert held.snapshot().held
    finally:
        await engine.aclose()
    assert not held.snapshot().held
