"""WebSocket peers that flood, fall silent, stop reading or leave; a server that stops; bugs of our own."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tracemalloc
from collections import Counter
from typing import Any

import anyio
import pytest

from behaviour.checks import until
from penstock.calls.limits import CallLimits
from penstock.calls.tasks import TaskOwner
from penstock.protocol.dispatch import LOCAL, Caller
from penstock.runtime.app import App
from penstock.server.batching import BatchingWebSocket
from penstock.server.outbox import MAX_WAITING
from penstock.server.settings import MIB
from penstock.server.websocket import BURST, MAX_CALLS, Socket
from server.conftest import Serve, Served, Told, project
from server.peer import (
    DEPARTURES,
    PING,
    PONG,
    TEXT,
    WAIT_S,
    Departure,
    Peer,
    frame,
    message,
)

pytestmark = pytest.mark.anyio

LOOPS = [
    pytest.param("asyncio", id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop for Windows"),
    ),
]


@pytest.fixture(scope="module", params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """How a peer's end and a full buffer are told differs between event loops."""
    return request.param


WINDOW = CallLimits().window
BATCH = 64  # items a producer may be past its window


def sockets(served: Served) -> list[Socket]:
    return list(served.host._application._sockets)


# -- sizes -------------------------------------------------------------------------------------------

HEAD, TAIL = b'{"type":"command","command":"size","input":{"text":"', b'"}}'


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("fragments", [1, 5])
async def test_a_message_has_at_most_16_megabytes(served: Served, more: int, fragments: int) -> None:
    padding = 16 * MIB + more - len(HEAD + TAIL)
    text = HEAD + b"x" * padding + TAIL
    step = len(text) // fragments + 1
    async with Peer.open(served.address) as peer:
        for begin in range(0, len(text), step):
            peer.write(frame(0 if begin else TEXT, text[begin : begin + step], fin=begin + step >= len(text)))
        if more > 0:
            assert await peer.ended() == 1009
        else:
            assert (await peer.receive())["data"] == padding
            assert await peer.until_pong() == []


async def test_empty_fragments_cost_nothing(served: Served) -> None:
    many, empty = 50_000, frame(0, b"", fin=False)
    async with Peer.open(served.address) as peer:
        peer.write(frame(TEXT, b'{"type":', fin=False) + frame(PING, b"begun"))
        assert await peer.frame() == (PONG, b"begun")
        tracemalloc.start()
        try:
            for _ in range(100):
                peer.write(empty * (many // 100))
                await peer.drain()
            peer.write(frame(PING, b"done"))
            assert await peer.frame() == (PONG, b"done")
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < many
        peer.write(frame(0, b'"ping"}'))
        assert (await peer.receive())["type"] == "pong"


# -- floods ------------------------------------------------------------------------------------------


async def test_of_ten_thousand_calls_at_once_256_run(served: Served, told: Told) -> None:
    async with Peer.open(served.address) as peer:
        opens = b"".join(
            message("command", command="hang", task_id=f"t{n}", is_stream=True) for n in range(10_000)
        )
        peer.write(opens)
        codes: Counter[str] = Counter()
        while codes.total() < 10_000:
            got = await peer.receive()
            if got["status"] != "streaming":
                codes[got.get("code", got["status"])] += 1
                assert "task_id" in got
        assert codes == {"accepted": MAX_CALLS, "resource_exhausted": 10_000 - MAX_CALLS}
        assert (await served.app.health()).in_flight == MAX_CALLS
        told.go.set()
        for _ in range(MAX_CALLS):
            await peer.until("completed")
        peer.send("command", command="echo", task_id="after", input={"text": "a"})
        assert (await peer.receive())["status"] == "completed"


async def test_of_ten_thousand_readers_256_read(served: Served, told: Told) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="hang", task_id="mine", is_stream=True)
        await peer.until("streaming")
        peer.write(message("resume", task_id="mine", after=1) * 10_000)
        for _ in range(10_000 - MAX_CALLS + 1):
            assert (await peer.receive())["code"] == "resource_exhausted"
        told.go.set()
        for _ in range(MAX_CALLS):
            await peer.until("completed")
        assert await peer.until_pong() == []


async def test_ten_thousand_short_calls_are_all_answered(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        for begin in range(0, 10_000, 200):
            for n in range(begin, begin + 200):
                peer.send("command", command="echo", task_id=f"t{n}", input={"text": str(n)})
            got = [await peer.receive() for _ in range(200)]
            assert {frame["data"]["text"] for frame in got} == {str(n) for n in range(begin, begin + 200)}


async def test_a_flood_of_messages_leaves_others_their_turns() -> None:
    turns, replies = 0, []
    handed = iter([{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "[]"}] * 1000])

    async def receive() -> dict[str, Any]:  # as a server does that has them all: without a pause
        return next(handed, {"type": "websocket.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        replies.append(message)

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    tasks = TaskOwner()
    tasks.start(count())
    async with App(project(Told())) as app:
        await Socket(app, LOCAL, lambda: 0.0, send, {}).serve(receive)
    await tasks.aclose()
    assert turns >= 1000 // BURST


async def test_a_flood_of_pings_by_a_peer_that_does_not_read_owes_one_pong(served: Served) -> None:
    async with Peer.open(served.address, receive_buffer=4096) as peer:
        peer.send("command", command="flood", task_id="mine", is_stream=True)
        connection = await stalled(served)
        await at_rest(served)  # the kernel may take a little more
        before = connection.transport.get_write_buffer_size()
        for n in range(20_000):
            peer.write(frame(PING, b"%0125d" % n))
        await until(lambda: connection._owed_pong.endswith(b"%d" % 19_999), lambda: connection._owed_pong)
        assert connection.transport.get_write_buffer_size() <= before
        while (got := await peer.frame())[0] != PONG:
            pass
        assert got == (PONG, b"%0125d" % 19_999)


# -- peers that do not read --------------------------------------------------------------------------


async def stalled(served: Served) -> BatchingWebSocket:
    """Return the one connection, once the server cannot write to it."""
    state = served.host._server.server_state

    def found() -> list[BatchingWebSocket]:
        connections = [c for c in state.connections if isinstance(c, BatchingWebSocket)]
        return [c for c in connections if not c.writable.is_set()]

    await until(lambda: bool(found()), lambda: "writable")
    return found()[0]


async def at_rest(served: Served) -> list[int]:
    """Return the sizes of all logs once none of them has grown for many turns of the loop."""
    sizes: list[int] = []
    steady = 0
    with anyio.fail_after(WAIT_S):
        while steady < 500:
            await asyncio.sleep(0)
            now = [live.log.size for live in served.app._store.live()]
            steady = steady + 1 if now == sizes else 0
            sizes = now
    return sizes


async def test_a_peer_that_does_not_read_holds_a_window_per_call_and_one_outbox(served: Served) -> None:
    calls, frame_size = 32, 1300
    async with Peer.open(served.address, receive_buffer=4096) as peer:
        for n in range(calls):
            peer.send("command", command="flood", task_id=f"t{n}", is_stream=True, input={"items": 800})
        connection = await stalled(served)
        await at_rest(served)
        (socket,) = sockets(served)
        # One batch may go past the mark, and one call after the other waits its turn.
        assert socket._outbox._size <= MAX_WAITING + WINDOW + frame_size
        assert connection.transport.get_write_buffer_size() <= 2 * (MAX_WAITING + WINDOW)
        for live in served.app._store.live():
            assert live.readers.unread <= WINDOW + BATCH * frame_size
        async with Peer.open(served.address) as other:  # nobody else notices
            other.send("command", command="tick", task_id="other", is_stream=True, input={"n": 1000})
            assert len(await other.until("completed")) == 1002
        seen: dict[str, list[int]] = {f"t{n}": [] for n in range(calls)}
        done = 0
        while done < calls:
            got = await peer.receive()
            seen[got["task_id"]].append(got["seq"])
            done += got["status"] == "completed"
        assert all(numbers == list(range(802)) for numbers in seen.values())


async def test_calls_get_their_turns_though_the_peer_reads_slowly(served: Served) -> None:
    async with Peer.open(served.address, receive_buffer=4096) as peer:
        for n in range(4):
            peer.send("command", command="flood", task_id=f"t{n}", is_stream=True)
        await stalled(served)
        counts: Counter[str] = Counter()
        for _ in range(8000):
            counts[(await peer.receive())["task_id"]] += 1
        assert min(counts.values()) > 500


async def test_a_peer_that_reads_nothing_is_dropped(serve: Serve, told: Told) -> None:
    async with serve(slow_reader_s=0.2) as served:
        async with Peer.open(served.address, receive_buffer=4096) as peer:
            peer.send("command", command="flood", task_id="mine", is_stream=True)
            with anyio.fail_after(WAIT_S):
                await told.stopped.wait()
            await until(lambda: not sockets(served), lambda: "still there")
        record = served.app.find("mine", LOCAL).record()
        assert (record.status, record.reason) == ("cancelled", "disconnect")


async def test_a_peer_that_reads_again_in_time_is_kept(serve: Serve) -> None:
    async with serve(slow_reader_s=2) as served, Peer.open(served.address, receive_buffer=4096) as peer:
        peer.send("command", command="flood", task_id="mine", is_stream=True, input={"items": 10_000})
        connection = await stalled(served)
        assert connection._peer.waited_for
        await peer.until("completed")
        assert not connection._peer.waited_for
        assert await peer.until_pong() == []


# -- peers that fall silent --------------------------------------------------------------------------


async def test_a_peer_that_does_not_answer_pings_is_closed(serve: Serve, told: Told) -> None:
    async with serve(ping_s=0.2) as served, Peer.open(served.address) as peer:
        peer.send("command", command="hang", task_id="mine", is_stream=True)
        await peer.until("streaming")
        assert (await peer.frame())[0] == PING
        assert await peer.ended() == 1011
        with anyio.fail_after(WAIT_S):
            await told.stopped.wait()


async def test_a_peer_that_answers_pings_is_kept(serve: Serve) -> None:
    async with serve(ping_s=0.05) as served, Peer.open(served.address) as peer:
        for _ in range(5):
            opcode, payload = await peer.frame()
            assert opcode == PING
            peer.write(frame(PONG, payload))
        assert await peer.until_pong() == []


async def test_a_peer_is_not_blamed_for_pongs_that_wait_on_this_side(served: Served) -> None:
    async with Peer.open(served.address, receive_buffer=4096) as peer:
        peer.send("command", command="flood", task_id="mine", is_stream=True, input={"items": 10_000})
        connection = await stalled(served)
        peer.write(message("ping") * 100)  # their answers wait for room, and nothing more is read
        await until(lambda: connection.read_paused, lambda: "reading")
        connection.send_keepalive_ping()
        payload = connection.pending_ping_payload
        peer.write(frame(PONG, payload))
        connection.pong_timer.cancel()
        connection.keepalive_timeout()
        assert not connection.transport.is_closing()
        await peer.until("completed")
        await until(lambda: connection.pending_ping_payload is None, lambda: "unanswered")
        assert connection.pong_timer is None


async def test_a_peer_that_neither_reads_nor_answers_is_closed_though_its_data_waits(
    serve: Serve, told: Told
) -> None:
    async with (
        serve(ping_s=0.2, slow_reader_s=100) as served,
        Peer.open(served.address, receive_buffer=4096) as peer,
    ):
        peer.send("command", command="flood", task_id="mine", is_stream=True)
        await stalled(served)
        with anyio.fail_after(WAIT_S):
            await told.stopped.wait()
        await until(lambda: not served.host._server.server_state.connections, lambda: "still there")


# -- peers that leave --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DEPARTURES)
@pytest.mark.parametrize("stalls", [False, True])
async def test_leaving_in_the_middle_cancels_the_calls(
    served: Served, told: Told, how: Departure, stalls: bool
) -> None:
    async with Peer.open(served.address, receive_buffer=4096) as peer:
        peer.send("command", command="flood" if stalls else "hang", task_id="mine", is_stream=True)
        await (stalled(served) if stalls else peer.until("streaming"))
        await peer.leave(how)
        with anyio.fail_after(WAIT_S):
            await told.stopped.wait()
    await until(lambda: not sockets(served), lambda: "still there")
    record = served.app.find("mine", LOCAL).record()
    assert (record.status, record.reason) == ("cancelled", "disconnect")


@pytest.mark.parametrize("how", DEPARTURES)
async def test_each_call_of_a_socket_follows_its_own_policy(
    served: Served, told: Told, how: Departure
) -> None:
    policies = {"a": "cancel", "b": "continue", "c": {"grace_s": 60}}
    async with Peer.open(served.address) as peer:
        for name, policy in policies.items():
            peer.send("command", command="hang", task_id=name, is_stream=True, on_disconnect=policy)
            await peer.until("streaming", name)
        await peer.leave(how)
        await until(lambda: not sockets(served), lambda: "still there")
    await until(lambda: served.app.find("a", LOCAL).ending is not None, lambda: "running")
    told.go.set()
    async with Peer.open(served.address) as peer:
        for name, status in (("a", "cancelled"), ("b", "completed"), ("c", "completed")):
            peer.send("resume", task_id=name)
            got = await peer.until(status)
            assert [frame["seq"] for frame in got] == list(range(len(got)))


@pytest.mark.parametrize("how", DEPARTURES)
async def test_a_call_that_is_opened_and_left_in_one_breath_is_cancelled(
    served: Served, how: Departure
) -> None:
    async with Peer.open(served.address) as peer:
        for n in range(20):
            peer.send("command", command="hang", task_id=f"t{n}", is_stream=True)
        await peer.leave(how)
    await until(lambda: not sockets(served), lambda: "still there")
    for live in served.app._store.of(LOCAL):
        await until(lambda live=live: live.ending is not None, lambda: "running")
        assert live.record().reason == "disconnect"


# -- a server that stops -----------------------------------------------------------------------------


async def test_a_server_that_stops_gives_every_call_its_end_and_closes(serve: Serve) -> None:
    async with (
        serve(CallLimits(drain_s=0.1)) as served,
        Peer.open(served.address) as busy,
        Peer.open(served.address) as idle,
    ):
        for n in range(3):
            busy.send("command", command="hang", task_id=f"t{n}", is_stream=True)
            await busy.until("streaming")
        served.host.stop()
        await until(lambda: served.app._status == "draining", lambda: served.app._status)
        busy.send("command", command="echo", task_id="late", input={"text": "a"})
        got = [await busy.receive() for _ in range(4)]
        assert {frame["task_id"] for frame in got} == {"t0", "t1", "t2", "late"}
        assert {(frame["status"], frame["code"]) for frame in got} == {("error", "unavailable")}
        assert await busy.ended() == 1012
        assert await idle.ended() == 1012


async def test_a_server_that_stops_waits_for_a_reader_that_is_behind(serve: Serve) -> None:
    async with (
        serve(CallLimits(drain_s=0.1)) as served,
        Peer.open(served.address, receive_buffer=4096) as peer,
    ):
        peer.send("command", command="flood", task_id="mine", is_stream=True)
        await stalled(served)
        served.host.stop()
        live = served.app.find("mine", LOCAL)
        await until(lambda: live.ending is not None, lambda: "running")
        last = (await peer.until("error"))[-1]
        assert (last["seq"], last["code"]) == (live.log.next_seq - 1, "unavailable")
        assert await peer.ended() == 1012


async def test_a_peer_that_does_not_read_cannot_hold_a_server_that_stops(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.server.websocket.CLOSE_S", 0.1)
    async with (
        serve(CallLimits(drain_s=0.1)) as served,
        Peer.open(served.address, receive_buffer=4096) as peer,
    ):
        peer.send("command", command="flood", task_id="mine", is_stream=True)
        await stalled(served)
        served.host.stop()
        await until(lambda: not served.host._server.server_state.connections, lambda: "still there")


# -- bugs of our own ---------------------------------------------------------------------------------


class Broken(RuntimeError):
    """A bug."""


def bug(*_: object) -> None:
    raise Broken("a bug")


@pytest.mark.parametrize("where", ["find", "reading"])
async def test_a_bug_ends_its_socket_is_logged_and_disturbs_no_other(
    served: Served, told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    async with Peer.open(served.address) as other, Peer.open(served.address) as peer:
        other.send("command", command="hang", task_id="other", is_stream=True)
        await other.until("streaming")
        if where == "find":
            monkeypatch.setattr(served.app, "find", bug)
            peer.send("resume", task_id="other")
        else:
            peer.send("command", command="hang", task_id="mine", is_stream=True)
            await peer.until("streaming")
            monkeypatch.setattr("penstock.calls.reader.WindowedReader._take", bug)
            told.go.set()
        assert await peer.ended() == 1011
        monkeypatch.undo()
        assert {type(record.exc_info[1]) for record in caplog.records if record.exc_info} == {Broken}
        if where == "find":
            told.go.set()
            assert (await other.until("completed"))[-1]["task_id"] == "other"


# -- other servers -----------------------------------------------------------------------------------


async def test_on_a_server_without_the_extension_every_frame_is_a_message(told: Told) -> None:
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if '"completed"' in message.get("text", ""):
            incoming.put_nowait({"type": "websocket.disconnect"})

    incoming.put_nowait({"type": "websocket.connect"})
    ask = {"type": "command", "command": "tick", "is_stream": True}
    incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(ask), "bytes": None})
    async with App(project(told)) as app:
        with anyio.fail_after(WAIT_S):
            await Socket(app, Caller(), lambda: 0.0, send, {}).serve(incoming.get)
    assert sent[0] == {"type": "websocket.accept", "subprotocol": None}
    assert [json.loads(message["text"])["seq"] for message in sent[1:]] == [0, 1, 2, 3]
