"""Streams: `accepted` leaves before the model starts, and each frame as soon as there is one."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import anyio
import pytest

from behaviour.checks import happened
from behaviour.connect import TERMINAL, HttpNdjson, HttpSse, Way
from behaviour.promises import promise
from behaviour.raw_http import WAIT_S, Address
from behaviour.served import Connect
from penstock import Runtime, current_call
from penstock.server.host import listen
from penstock.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

STREAMED = pytest.mark.parametrize("way_in", [HttpNdjson, HttpSse], ids=["http-ndjson", "http-sse"])


@promise("P16")
async def test_accepted_is_there_while_the_model_has_not_started(connect: Connect) -> None:
    rt = Runtime()
    started: list[str] = []
    go = asyncio.Event()

    @rt.streaming_command("one_at_a_time", concurrency=1)
    async def one_at_a_time(name: str):
        started.append(name)
        await go.wait()
        yield {"name": name}

    async with connect(rt) as way:
        first = await way.open("one_at_a_time", {"name": "first"})
        second = await way.open("one_at_a_time", {"name": "second"})
        assert (await second.until("accepted"))["seq"] == 0
        await first.until("accepted")
        assert "second" not in started
        go.set()
        for call in (first, second):
            assert (await call.last())["status"] == "completed"
        assert started == ["first", "second"]


@promise("P16")
async def test_accepted_does_not_wait_for_the_model_to_be_made(connect: Connect) -> None:
    rt = Runtime()
    loaded = asyncio.Event()

    @rt.command("initialize")
    async def initialize():
        await loaded.wait()
        return {"model": "loaded"}

    @rt.streaming_command("predict")
    async def predict(model=None):
        yield {"text": model}

    async with connect(rt) as way:
        call = await way.open("predict")
        await call.until("accepted")
        loaded.set()
        last = await call.last()
        assert last["status"] == "completed"
        assert (await way.log(call.request_id))[1]["data"] == {"text": "loaded"}


@promise("P16", "P3")
async def test_each_frame_leaves_at_once(connect: Connect) -> None:
    rt = Runtime()
    seen = asyncio.Semaphore(0)

    @rt.streaming_command("count")
    async def count(n: int):
        for i in range(n):
            yield {"i": i}
            await seen.acquire()  # the next item is not made before this one was received

    async with connect(rt) as way:
        call = await way.open("count", {"n": 20})
        watched = await way.watch(call)
        for i in range(20):
            assert (await watched.until("streaming"))["data"] == {"i": i}
            seen.release()
        assert (await watched.last())["status"] == "completed"
        await call.last()


@promise("P16")
async def test_each_item_of_a_thread_leaves_at_once(connect: Connect) -> None:
    rt = Runtime()
    seen = threading.Semaphore(0)

    @rt.streaming_command("count")
    def count(n: int):
        for i in range(n):
            yield {"i": i}
            assert seen.acquire(timeout=WAIT_S)

    async with connect(rt) as way:
        call = await way.open("count", {"n": 20})
        watched = await way.watch(call)
        for i in range(20):
            assert (await watched.until("streaming"))["data"] == {"i": i}
            seen.release()
        assert (await watched.last())["status"] == "completed"
        await call.last()


class BlockingClient:
    """A client in a thread of its own: it reads on while author code holds the server's event loop."""

    def __init__(self, address: Address, accept: str) -> None:
        self._address = address
        self._accept = accept
        self.seen = threading.Semaphore(0)  # a permit for each frame received
        self.statuses: list[str] = []

    def run(self, command: str) -> None:
        body = json.dumps({"command": command, "is_stream": True})
        head = (
            f"POST /v2/execute HTTP/1.1\r\nhost: test\r\naccept: {self._accept}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(self._address, WAIT_S) as peer:
            peer.sendall((head + body).encode())
            with peer.makefile("rb") as lines:
                for frame in self._frames(lines):
                    self.statuses.append(frame["status"])
                    self.seen.release()
                    if frame["status"] in TERMINAL:
                        return

    def _frames(self, lines: Iterator[bytes]) -> Iterator[dict]:
        for line in lines:
            line = line.removeprefix(b"data: ")
            if line.startswith(b"{"):
                yield json.loads(line)


async def _runs_against(way: Way, client: BlockingClient, command: str) -> list[str]:
    with anyio.fail_after(2 * WAIT_S):
        await asyncio.to_thread(client.run, command)
    return client.statuses


@promise("P16")
@STREAMED
async def test_accepted_is_received_before_the_first_line_of_the_model_has_run(connect: Connect) -> None:
    rt = Runtime()
    was_seen: list[bool] = []

    @rt.streaming_command("holds")
    async def holds():
        # The loop is held, so whatever is received now was sent before the model started.
        was_seen.append(client.seen.acquire(timeout=WAIT_S))
        yield {"i": 0}

    async with connect(rt) as way:
        client = BlockingClient(way.address, way.accept)
        statuses = await _runs_against(way, client, "holds")
        assert was_seen == [True]
        assert statuses == ["accepted", "streaming", "completed"]


@promise("P16")
@STREAMED
async def test_frames_leave_also_while_a_model_holds_the_loop_between_them(connect: Connect) -> None:
    rt, clock = Runtime(), FakeClock()
    was_seen: list[bool] = []

    @rt.streaming_command("holds")
    async def holds():
        for i in range(5):
            clock.advance(0.1)  # as if the item had taken this long to make, without an await
            was_seen.append(client.seen.acquire(timeout=1.0))
            yield {"i": i}

    async with connect(rt, clock=clock) as way:
        client = BlockingClient(way.address, way.accept)
        await _runs_against(way, client, "holds")
        assert was_seen == [True] * 5


@promise("P16")
async def test_no_frame_waits_for_the_acknowledgement_of_the_one_before() -> None:
    with (
        listen("127.0.0.1", 0, "--port") as listener,
        socket.create_connection(listener.getsockname(), WAIT_S),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@promise("P3")
async def test_notes_are_numbered_with_the_rest(connect: Connect) -> None:
    rt = Runtime()
    go = asyncio.Event()

    @rt.streaming_command("noted", concurrency=1)
    async def noted():
        await go.wait()
        current_call().progress(0.5, "half")
        await asyncio.sleep(0)
        yield {"i": 0}

    async with connect(rt) as way:
        first = await way.open("noted")
        second = await way.open("noted", notes=True)
        await second.until("queued")
        go.set()
        await first.last()
        await second.last()
        log = await way.log(second.request_id)
        statuses = [frame["status"] for frame in log]
        assert statuses == ["accepted", "queued", "progress", "streaming", "completed"]
        assert log[1]["position"] == 1
        assert log[2]["data"] == {"fraction": 0.5, "message": "half"}
        plain = [frame["status"] for frame in await way.log(first.request_id)]
        assert plain == ["accepted", "streaming", "completed"]


@promise("P3")
async def test_several_readers_see_the_same_frames(connect: Connect) -> None:
    rt = Runtime()
    go = asyncio.Event()

    @rt.streaming_command("count")
    async def count():
        for i in range(5):
            yield {"i": i}
        await go.wait()
        for i in range(300):
            yield {"i": i}

    async with connect(rt) as way:
        call = await way.open("count")
        early = await way.resume(call.request_id)
        while (await early.until("streaming"))["data"] != {"i": 4}:
            pass
        late = await way.resume(call.request_id, after=3)
        go.set()
        await happened(go)
        await early.frames()
        await late.frames()
        log = await way.log(call.request_id)
        assert [json.loads(line) for line in early.received] == log
        assert [json.loads(line) for line in late.received] == log[4:]
        await call.last()
