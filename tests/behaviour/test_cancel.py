"""Cancelling: who wins, who is told, who is not disturbed."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from behaviour.checks import happened
from behaviour.connect import Handle, Refused, Way
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import Runtime
from penstock.testing.zoo import model_zoo

pytestmark = pytest.mark.anyio


@promise("P7")
async def test_cancel_is_idempotent(connect: Connect) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime) as way:
        call = await way.open("silent", task_id="quiet")
        await call.until("accepted")
        assert await way.cancel("quiet") == "cancelled"
        frame = await call.until("cancelled")
        assert frame["reason"] == "caller"
        assert frame["cancel"]["requested_at"] <= frame["timestamp"]
        log = await way.log(call.request_id)
        for _ in range(3):
            assert await way.cancel("quiet") == "already_finished"
            assert await way.cancel(call.request_id) == "already_finished"
        assert await way.log(call.request_id) == log


@promise("P7")
async def test_cancel_twice_at_once_is_one_cancel(connect: Connect) -> None:
    zoo = model_zoo()
    async with connect(zoo.runtime) as way:
        call = await way.open("ignore_cancel")
        await zoo.journal.wait("started")
        outcomes = Counter(await asyncio.gather(*(call.cancel() for _ in range(10))))
        # Within a turn of the event loop the call has ended, though its code runs on; later ones are told so.
        assert outcomes["cancelled"] >= 1
        assert outcomes.keys() <= {"cancelled", "already_finished"}
        assert (await call.last())["status"] == "cancelled"
        assert await call.cancel() == "already_finished"
        zoo.release()
        await zoo.journal.wait("finished", call.request_id)
        await zoo.journal.wait("aborted", call.request_id)
        assert zoo.journal.count("ignored") == zoo.journal.count("aborted") == 1
        assert [frame["status"] for frame in await way.log(call.request_id)].count("cancelled") == 1


@promise("P7")
async def test_an_unknown_id_is_not_found(connect: Connect) -> None:
    async with connect(model_zoo().runtime) as way:
        for ask in (way.cancel, way.record, way.resume):
            with pytest.raises(Refused) as refused:
                await ask("nobody")
            assert (refused.value.code, refused.value.status) == ("not_found", 404)


@promise("P7")
async def test_a_finished_call_says_so(connect: Connect) -> None:
    async with connect(model_zoo().runtime) as way:
        call = await way.open("echo", {"value": 7})
        assert (await call.last())["data"] == 7
        assert await call.cancel() == "already_finished"
        record = await way.record(call.request_id)
        assert (record["status"], record["result"]) == ("completed", 7)
        assert "cancel" not in record


async def _turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def _race(way: Way, gates: dict[str, asyncio.Event], number: int) -> tuple[str, str]:
    """Let a call complete while it is cancelled, each a few turns of the loop before or after the other."""
    task_id = f"race-{number}"
    gates[task_id] = go = asyncio.Event()
    call = await way.open("finish", {"gate": task_id}, task_id=task_id)
    lead = number % 25 - 12

    async def complete() -> None:
        await _turns(lead)
        go.set()

    async def cancel() -> str:
        await _turns(-lead)
        return await call.cancel()

    outcome, _ = await asyncio.gather(cancel(), complete())
    last = await call.last()
    await call.aclose()
    return outcome, last["status"]


@promise("P7", "P1")
async def test_1000_races_of_cancel_against_completion_have_one_winner_each(connect: Connect) -> None:
    rt = Runtime()
    gates: dict[str, asyncio.Event] = {}

    @rt.command("finish")
    async def finish(gate: str):
        await gates.pop(gate).wait()

    async with connect(rt) as way:
        ends = Counter([await _race(way, gates, number) for number in range(1000)])
        assert set(ends) == {("cancelled", "cancelled"), ("already_finished", "completed")}, ends


@promise("P8")
async def test_cancelling_every_tenth_of_100_leaves_the_rest_exact(connect: Connect) -> None:
    rt = Runtime()
    go = asyncio.Event()

    @rt.streaming_command("count", concurrency=100)
    async def count(name: str):
        for i in range(30):
            yield {"name": name, "i": i}
            if i == 9:
                await go.wait()

    async with connect(rt) as way:
        calls = [await way.open("count", {"name": f"call {n}"}) for n in range(100)]
        for call in calls:
            await call.until("streaming")
        outcomes = await asyncio.gather(*(call.cancel() for call in calls[::10]))
        assert outcomes == ["cancelled"] * 10
        go.set()
        for number, call in enumerate(calls):
            await call.frames()
            log = await way.log(call.request_id)
            if number % 10:
                expected = [{"name": f"call {number}", "i": i} for i in range(30)]
                assert [frame["data"] for frame in log[1:-1]] == expected
                assert log[-1]["status"] == "completed"
            else:
                assert log[-1]["status"] == "cancelled"
                assert len(log) <= 12


@promise("P8")
async def test_cancelling_a_call_in_the_queue_disturbs_neither_its_neighbours(connect: Connect) -> None:
    rt = Runtime()
    ran: list[int] = []
    go = asyncio.Event()

    @rt.command("one_at_a_time", concurrency=1)
    async def one_at_a_time(n: int):
        ran.append(n)
        await go.wait()
        return n

    async with connect(rt) as way:
        calls = [await way.open("one_at_a_time", {"n": n}) for n in range(5)]
        assert await calls[2].cancel() == "cancelled"
        assert (await calls[2].last())["status"] == "cancelled"
        go.set()
        answers = [await calls[n].last() for n in (0, 1, 3, 4)]
        assert [answer["data"] for answer in answers] == ran == [0, 1, 3, 4]


async def _ends(call: Handle, status: str) -> None:
    assert (await call.last())["status"] == status


@promise("P8")
async def test_an_id_can_be_used_again_once_its_call_has_ended(connect: Connect) -> None:
    rt = Runtime()
    started = asyncio.Event()

    @rt.command("maybe")
    async def maybe(wait: bool):
        if wait:
            started.set()
            await asyncio.Event().wait()
        return "done"

    async with connect(rt) as way:
        first = await way.open("maybe", {"wait": True}, task_id="mine")
        await happened(started)
        with pytest.raises(Refused) as refused:
            await way.open("maybe", {"wait": False}, task_id="mine")
        assert (refused.value.code, refused.value.status) == ("conflict", 409)
        await first.cancel()
        await _ends(first, "cancelled")
        second = await way.open("maybe", {"wait": False}, task_id="mine")
        await _ends(second, "completed")
        assert first.request_id != second.request_id
        assert (await way.record("mine"))["request_id"] == second.request_id
        assert (await way.record(first.request_id))["status"] == "cancelled"
        assert (await way.log(first.request_id))[-1]["status"] == "cancelled"
