"""Reading a call's log again, from any frame on, while it runs or after."""

from __future__ import annotations

import asyncio
import json

import pytest

from behaviour.connect import Refused
from behaviour.promises import promise
from behaviour.served import Connect
from penstock import Runtime
from penstock.calls.limits import CallLimits
from penstock.testing.clock import FakeClock
from penstock.testing.zoo import model_zoo

pytestmark = pytest.mark.anyio


@promise("P12", "P3")
async def test_every_cursor_gives_exactly_the_rest(connect: Connect) -> None:
    async with connect(model_zoo().runtime) as way:
        call = await way.open("ticker", {"n": 20})
        await call.frames()
        log = await way.log(call.request_id)
        assert len(log) == 22
        for after in range(-1, 22):
            reader = await way.resume(call.request_id, after)
            assert await reader.frames() == log[after + 1 :]
            await reader.aclose()


@promise("P12")
async def test_a_reader_that_was_cut_off_goes_on_where_it_was(connect: Connect) -> None:
    rt = Runtime()
    seen = asyncio.Semaphore(0)

    @rt.streaming_command("count")
    async def count():
        for i in range(30):
            yield {"i": i}
            await seen.acquire()

    async with connect(rt) as way:
        call = await way.open("count", on_disconnect="continue")
        frames = []
        reader = await way.watch(call)
        for i in range(30):
            frames.append(await reader.until("streaming"))
            seen.release()
            if i % 3 == 2:
                await reader.drop("rst")
                reader = await way.resume(call.request_id, after=frames[-1]["seq"])
        frames += await reader.frames()
        assert frames == (await way.log(call.request_id))[1:]


@promise("P12")
async def test_frames_that_are_gone_are_said_to_be_gone(connect: Connect) -> None:
    async with connect(model_zoo().runtime, limits=CallLimits(kept_per_call=2000)) as way:
        call = await way.open("ticker", {"n": 100})
        await call.frames()
        with pytest.raises(Refused) as refused:
            await way.resume(call.request_id)
        assert (refused.value.status, refused.value.code) == (410, "gone")
        first = (await way.record(call.request_id))["first_seq"]
        assert 80 < first < 101
        with pytest.raises(Refused):
            await way.resume(call.request_id, after=first - 2)
        rest = await way.resume(call.request_id, after=first - 1)
        assert [frame["seq"] for frame in await rest.frames()] == list(range(first, 102))


@promise("P12")
async def test_a_log_is_kept_for_its_time(connect: Connect) -> None:
    clock = FakeClock()
    async with connect(model_zoo().runtime, clock=clock, limits=CallLimits(kept_for_s=300)) as way:
        call = await way.open("echo", {"value": "x"})
        await call.frames()
        clock.advance(299.0)
        assert len(await way.log(call.request_id)) == 2
        clock.advance(1.0)
        with pytest.raises(Refused) as refused:
            await way.resume(call.request_id)
        assert (refused.value.status, refused.value.code) == (410, "gone")
        assert (await way.record(call.request_id))["status"] == "completed"


@promise("P13")
@pytest.mark.parametrize("after", [-2, 3, 1_000_000])
async def test_a_cursor_that_is_no_frame_is_refused(connect: Connect, after: int) -> None:
    async with connect(model_zoo().runtime) as way:
        call = await way.open("ticker", {"n": 1})
        await call.frames()
        with pytest.raises(Refused) as refused:
            await way.resume(call.request_id, after=after)
        assert (refused.value.status, refused.value.code) == (400, "invalid_argument")


@promise("P13")
@pytest.mark.parametrize("after", ["x", "", "1_0", "%C2%B2", "1.0", "0x1", "1e1", "9" * 400, "--1", "+1"])
async def test_a_cursor_that_is_no_number_is_refused(connect_http: Connect, after: str) -> None:
    async with connect_http(model_zoo().runtime) as way:
        call = await way.open("ticker", {"n": 20})
        await call.frames()
        reply = await way.request("GET", f"/tasks/{call.request_id}/events?after={after}")
        assert (reply.status, json.loads(reply.body)["code"]) == (400, "invalid_argument")


@promise("P12")
async def test_last_event_id_is_a_cursor(connect_http: Connect) -> None:
    async with connect_http(model_zoo().runtime) as way:
        call = await way.open("ticker", {"n": 3})
        await call.frames()
        headers = {"accept": "text/event-stream", "last-event-id": "2"}
        reply = await way.request("GET", f"/tasks/{call.request_id}/events", headers=headers)
        events = reply.body.split(b"\n\n")[:-1]
        assert [event.split(b"\n")[0] for event in events] == [b"id: 3", b"id: 4"]


@promise("P12")
async def test_resume_replays_the_form_of_the_request_that_opened_the_call(connect_http: Connect) -> None:
    async with connect_http(model_zoo().runtime) as way:
        body = b'{"input": {"value": 1}, "is_stream": true, "task_id": "old"}'
        first = await way.request("POST", "/predict", body)
        again = await way.request("GET", "/tasks/old/events")
        assert again.body == first.body
        assert b"version" not in again.body
