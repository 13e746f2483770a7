"""More work than there is room for: refused at once, typed, with a hint when to come back."""

from __future__ import annotations

import asyncio

import pytest

from behaviour.checks import permits
from behaviour.connect import Refused
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import Runtime
from penstock.calls.limits import CallLimits
from penstock.testing.zoo import model_zoo

pytestmark = pytest.mark.anyio


@promise("P24")
async def test_a_full_queue_refuses_and_says_when_to_come_back(connect: Connect) -> None:
    rt = Runtime()
    go = asyncio.Event()

    @rt.command("slow", concurrency=2, queue=3)
    async def slow():
        await go.wait()
        return "done"

    @rt.command("other")
    async def other():
        return "done"

    async with connect(rt) as way:
        calls = [await way.open("slow") for _ in range(5)]
        for _ in range(20):
            with pytest.raises(Refused) as refused:
                await way.open("slow")
            assert (refused.value.status, refused.value.code) == (429, "resource_exhausted")
            assert 1 <= refused.value.retry_after <= 60
        assert permits(way.dispatcher.inner) == (2, 3, 5, 5)
        assert (await way.health())["status"] == "healthy"  # probes answer,
        assert (await way.ask("other"))["data"] == "done"  # and so do other commands
        go.set()
        for call in calls:
            assert (await call.last())["data"] == "done"
        assert (await way.ask("slow"))["data"] == "done"


@promise("P24")
async def test_there_is_a_bound_on_calls_in_flight(connect: Connect) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime, limits=CallLimits(in_flight=3)) as way:
        calls = [await way.open("silent") for _ in range(3)]
        with pytest.raises(Refused) as refused:
            await way.open("echo")
        assert (refused.value.status, refused.value.code) == (429, "resource_exhausted")
        assert refused.value.retry_after >= 1
        await calls[0].cancel()
        await calls[0].last()
        assert (await way.ask("echo", {"value": 1}))["data"] == 1


@promise("P24", "P9")
async def test_a_refusal_takes_nothing(connect: Connect) -> None:
    rt = Runtime()

    @rt.command("add")
    async def add(a: int, b: int):
        return a + b

    async with connect(rt) as way:
        for wrong in ({"a": 1}, {"a": 1, "b": "x"}, {"a": 1, "b": 2, "c": 3}):
            with pytest.raises(Refused):
                await way.open("add", wrong)
        assert permits(way.dispatcher.inner) == (0, 0, 0, 0)
        assert not way.dispatcher.calls
        assert (await way.ask("add", {"a": 1, "b": 2}))["data"] == 3
