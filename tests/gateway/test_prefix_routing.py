"""Runners with slots that hold conversations, behind real links: calls go where theirs is held."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from behaviour.checks import until
from behaviour.sites import Site, site
from penstock import Runtime
from penstock.calls import ambient
from penstock.engines.prefixes import SlotPrefixes
from penstock.gateway.choosing import affinity
from penstock.gateway.runner_link import RunnerLink
from penstock.kv.prompts import read_prompt
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Route, Start
from penstock.runner.runner import Runner
from penstock.runtime.app import App

pytestmark = pytest.mark.anyio

TENANTS = ("ant", "bee", "cat", "dog")


class Slots:
    """A project whose engine has a few slots, and computes what they do not hold."""

    def __init__(self, count: int = 2) -> None:
        self.prefixes = SlotPrefixes(count)
        self.computed: list[str] = []
        self.runtime = rt = Runtime()

        @rt.streaming_command("predict", concurrency=count)
        async def predict(prompt: str, system_prompt: str) -> AsyncIterator[str]:
            asked = ambient.asked_prefix.get()
            assert asked is not None
            found = read_prompt(asked.input)
            assert found is not None
            chain = found.chain()
            slot = self.prefixes.take(chain)
            try:
                if not self.prefixes._held[slot]:
                    self.computed.append(system_prompt.partition(" ")[0])
                yield "well"
                await asyncio.sleep(0)
                self.prefixes.evaluated(slot, chain, asked, "well")
            finally:
                self.prefixes.give_back(slot)


def given(tenant: str, question: str) -> dict[str, str]:
    return {"prompt": question, "system_prompt": f"{tenant} " * 500}


@asynccontextmanager
async def running(at: Site, *names: str) -> AsyncIterator[dict[str, tuple[Slots, Runner]]]:
    found = {}
    async with AsyncExitStack() as stack:
        for name in names:
            slots = Slots()
            made = Runner(App(slots.runtime), [at.cable.url], name, chance=lambda: 0.0)
            found[name] = (slots, await stack.enter_async_context(made))
        await at.there(len(names))
        yield found


def agree(at: Site, runners: dict[str, tuple[Slots, Runner]]) -> bool:
    """Whether the hub's index of each runner is what that holds."""
    for name, (_, runner) in runners.items():
        link = at.hub.runners.find(name)
        assert isinstance(link, RunnerLink)
        if link.prefixes._index.hashes(None) != set(runner.held.snapshot().held):
            return False
    return True


async def asked(at: Site, tenant: str, question: str) -> None:
    frames = await at.frames(await at.open("predict", **given(tenant, question)))
    assert frames[-1]["status"] == "completed"


async def test_each_conversation_is_computed_by_few_runners() -> None:
    order = random.Random(7)
    async with site() as at, running(at, "one", "two") as runners:
        for number in range(60):
            await asked(at, order.choice(TENANTS), f"question {number}")
        await until(lambda: agree(at, runners), lambda: "what is held")
        computed = sum(len(slots.computed) for slots, _ in runners.values())
        # Four fit in the slots of both; going round would compute half of the calls.
        assert computed <= 12
        held = [set(runner.held.snapshot().held) for _, runner in runners.values()]
        assert all(held)
        assert not held[0] & held[1]


async def test_a_gateway_that_is_told_nothing_goes_round() -> None:
    order = random.Random(7)
    async with site(prefix_blocks=0) as at, running(at, "one", "two") as runners:
        for number in range(30):
            await asked(at, order.choice(TENANTS), f"question {number}")
        assert sum(len(slots.computed) for slots, _ in runners.values()) >= 10


@pytest.mark.parametrize("seed", range(3))
async def test_what_the_gateway_knows_is_what_is_held_over_lost_links(seed: int) -> None:
    order = random.Random(seed)
    async with site() as at, running(at, "one", "two", "three") as runners:
        for step in range(6):
            talks = [order.choice(TENANTS) for _ in range(order.randrange(1, 5))]
            lives = [await at.open("predict", **given(tenant, f"{step}")) for tenant in talks]
            if order.random() < 0.6:
                at.cable.cut_after(order.randrange(1, 3000), up=order.random() < 0.7)
            for live in lives:
                await at.frames(live)
        at.cable.cut()
        await at.there(3)
        await until(lambda: agree(at, runners), lambda: "what is held")


async def test_code_in_threads_knows_the_prompt_of_its_call_and_others_have_none() -> None:
    rt = Runtime()
    seen: list[bytes | None] = []

    @rt.command("predict", isolation="thread")
    def predict(prompt: str) -> None:
        asked = ambient.asked_prefix.get()
        seen.append(None if asked is None else asked.input)

    app = App(rt)
    async with site() as at, Runner(app, [at.cable.url], "one"):
        await at.there()
        await at.frames(await at.open("predict", prompt="a fox"))
        start = Start(command="predict", input=b'{"prompt": "an owl"}', is_stream=True)
        await at.frames(await app.open(start, LOCAL))
    assert seen == [b'{"prompt": "a fox"}', None]
    assert ambient.asked_prefix.get() is None


async def test_a_gateway_that_starts_anew_is_told_everything() -> None:
    async with site() as at, running(at, "one") as runners:
        await asked(at, "ant", "a")
        old = at.hub
        await at.start_hub()
        await old.aclose()
        await at.there()
        await until(lambda: agree(at, runners), lambda: "what is held")
        assert at.hub.runners.find("one").prefixes.blocks > 0


async def test_a_key_still_sticks() -> None:
    async with site() as at, running(at, "one", "two") as runners:
        await asked(at, "ant", "a")
        [(holder, _)] = [item for item in runners.items() if item[1][0].computed]
        other = next(name for name in runners if name != holder)
        keys = map(str, range(100))
        key = next(key for key in keys if max(at.hub.runners, key=partial(affinity, key)).name == other)
        text, route = json.dumps(given("ant", "b")).encode(), Route(sticky=key)
        start = Start(command="predict", input=text, is_stream=True, route=route)
        await at.frames(await at.hub.open(start, LOCAL))
        assert runners[other][0].computed == ["ant"]
