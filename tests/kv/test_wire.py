"""Events over ZeroMQ, in the form of vLLM: what is written, what is read, and two processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st

from kv.test_events import EVENTS
from penstock import kv as kv_room
from penstock.errors import RemoteProtocolError, ReplayTruncated
from penstock.kv import (
    AllBlocksCleared,
    BlockPool,
    BlockRemoved,
    BlockStored,
    EventBatch,
    EventLog,
    EventPublisher,
    PrefixIndex,
    read_frames,
    subscribe,
    write_frames,
)
from penstock.kv.subscribing import _Reader
from penstock.kv.wire import END_SEQ, seq_frame

pytestmark = pytest.mark.anyio

ANYWHERE = "tcp://127.0.0.1:*"
STORED = BlockStored((7, b"\1" * 32), 6, (1, 2, 3, 4), 2, 3, "GPU", "fox")
PUBLISHER = f"""
import asyncio, sys
from kv.asking import BLOCK, params
from penstock.kv import BlockPool, EventPublisher

async def main():
    pool = BlockPool(8, BLOCK, "gpu")
    with EventPublisher(pool.events, {ANYWHERE!r}, {ANYWHERE!r}) as publisher:
        running = [publisher.publish(), publisher.serve_replays()]
        running = [asyncio.ensure_future(each) for each in running]
        print(publisher.endpoint, publisher.replay_endpoint, flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            start = int(line)
            pool.free(pool.allocate(params(16), range(start, start + 16)))
            print(pool.events.next_seq, *[name.hex() for name in pool.snapshot()[1]["gpu"]], flush=True)

asyncio.run(main())
"""


@given(st.builds(EventBatch, st.integers(0, 2**62), st.floats(0, 2e9), st.lists(EVENTS).map(tuple)))
def test_a_message_is_read_as_it_was_written(batch: EventBatch) -> None:
    assert read_frames(write_frames(batch, b"topic")) == batch


def test_what_is_written_is_an_array_of_maps() -> None:
    topic, seq, payload = write_frames(EventBatch(258, 1.5, (STORED, AllBlocksCleared()), 2), b"kv")
    assert (topic, seq) == (b"kv", b"\0\0\0\0\0\0\1\2")
    assert msgspec.msgpack.decode(payload) == [
        1.5,
        [
            {
                "type": "BlockStored",
                "block_hashes": [7, b"\1" * 32],
                "parent_block_hash": 6,
                "token_ids": [1, 2, 3, 4],
                "block_size": 2,
                "lora_id": 3,
                "medium": "GPU",
                "lora_name": "fox",
            },
            {"type": "AllBlocksCleared"},
        ],
        2,
    ]


NEWER = {"extra_keys": [["fox"], None], "group_idx": 0, "kv_cache_spec_kind": "full_attention"}
AS_MAP = {
    "type": "BlockStored",
    "block_hashes": [7, b"\1" * 32],
    "parent_block_hash": 6,
    "token_ids": [1, 2, 3, 4],
    "block_size": 2,
    "lora_id": 3,
    "medium": "GPU",
    "lora_name": "fox",
    **NEWER,
}
AS_ARRAY = ["BlockStored", [7, b"\1" * 32], 6, [1, 2, 3, 4], 2, 3, "GPU", "fox", *NEWER.values()]
REMOVED = {"type": "BlockRemoved", "block_hashes": [7]}
OLD = ["BlockStored", [7, b"\1" * 32], 6, [1, 2, 3, 4], 2, 3]


@pytest.mark.parametrize(
    "batch",
    [
        [1.5, [AS_MAP, ["BlockRemoved", [7]]], 2],
        [1.5, [AS_ARRAY, ["BlockRemoved", [7], None, 0]], 2, "newer"],
        {
            "ts": 1.5,
            "events": [AS_MAP, {"type": "BlockRemoved", "block_hashes": [7]}],
            "data_parallel_rank": 2,
        },
        {"ts": 1.5, "events": [AS_ARRAY, ["BlockRemoved", [7]]], "data_parallel_rank": 2},
    ],
)
def test_both_forms_are_read_at_both_levels(batch: object) -> None:
    frames = (b"", seq_frame(4), msgspec.msgpack.encode(batch))
    assert read_frames(frames) == EventBatch(4, 1.5, (STORED, BlockRemoved((7,))), 2)


def test_what_is_left_out_has_its_default() -> None:
    found = read_frames((seq_frame(0), msgspec.msgpack.encode([1, [OLD, ["AllBlocksCleared"]]])))
    assert found is not None
    assert found.events[0] == msgspec.structs.replace(STORED, medium=None, lora_name=None)
    assert (found.events[1], found.rank, found.timestamp) == (AllBlocksCleared(), None, 1.0)


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (b"",),
        (b"", b"1", b""),
        (b"", seq_frame(0), b""),
        (b"", seq_frame(0), b"\xc1"),
        (b"", seq_frame(0), b"\x91" * 100_000),
        *(
            (b"", seq_frame(0), msgspec.msgpack.encode(batch))
            for batch in (
                [],
                5,
                {},
                [1.0],
                ["now", []],
                [1.0, 5],
                [1.0, [5]],
                [1.0, [[]]],
                [1.0, [["BlockMoved", []]]],
                [1.0, [{"type": "BlockMoved"}]],
                [1.0, [["BlockStored", [1]]]],
                [1.0, [["BlockRemoved", ["text"]]]],
                [1.0, [], "rank"],
            )
        ),
    ],
)
def test_what_is_no_message_is_refused(frames: tuple[bytes, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_frames(frames)


def test_a_replay_has_an_end() -> None:
    assert read_frames((b"", b"", seq_frame(END_SEQ), b"")) is None


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_any_bytes_are_read_or_refused(frames: list[bytes]) -> None:
    try:
        read_frames(frames)
    except RemoteProtocolError:
        return


# -- over sockets ------------------------------------------------------------------------------------------


@contextmanager
def publisher_process() -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    tests = str(Path(__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {tests!r})\n{PUBLISHER}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            endpoint, replays = process.stdout.readline().split()
            yield process, endpoint, replays
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], start: int) -> tuple[int, set[bytes]]:
    """Have the other process cache something; return what it has then."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{start}\n")
    process.stdin.flush()
    next_seq, *names = process.stdout.readline().split()
    return int(next_seq), {bytes.fromhex(name) for name in names}


async def test_another_process_knows_the_same() -> None:
    index, news = PrefixIndex(), asyncio.Event()

    async def read(endpoint: str, replays: str) -> None:
        async with aclosing(subscribe(endpoint, replays, after=-1)) as batches:
            async for batch in batches:
                index.take(batch.seq, batch.events)
                news.set()

    with publisher_process() as (process, endpoint, replays), anyio.fail_after(60):
        due = await asyncio.to_thread(ask, process, 0)  # before anybody has subscribed
        async with anyio.create_task_group() as group:
            group.start_soon(read, endpoint, replays)
            for start in range(100, 2000, 100):
                # What is told before the subscription takes effect is missed at what is told next.
                with anyio.move_on_after(2):
                    while index.next_seq < due[0]:
                        await news.wait()
                        news.clear()
                    assert index.hashes("gpu") == due[1]
                due = await asyncio.to_thread(ask, process, start)
            while index.next_seq < due[0]:
                await news.wait()
                news.clear()
            assert index.hashes("gpu") == due[1]
            group.cancel_scope.cancel()


class Told:
    """A publisher of a log that keeps five events, and a reader to whom its messages are brought by hand."""

    def __init__(self, publisher: EventPublisher, log: EventLog, reader: _Reader) -> None:
        self.publisher, self.log, self.reader = publisher, log, reader

    def tell(self, count: int) -> None:
        for _ in range(count):
            self.log.cleared(timestamp=float(self.log.next_seq))

    async def bring(self, seq: int, timestamp: float | None = None) -> list[int]:
        at = float(seq) if timestamp is None else timestamp
        batch = EventBatch(seq, at, (AllBlocksCleared(),), 1)
        return [each.seq async for each in self.reader.in_order(batch)]


@asynccontextmanager
async def told() -> AsyncIterator[Told]:
    log, context = EventLog(max_events=5), zmq.asyncio.Context()
    context.linger = 0
    try:
        with anyio.fail_after(20), EventPublisher(log, ANYWHERE, ANYWHERE, topic="kv", rank=1) as publisher:
            async with anyio.create_task_group() as group:
                group.start_soon(publisher.publish)
                group.start_soon(publisher.serve_replays)
                yield Told(publisher, log, _Reader(context, publisher.replay_endpoint))
                group.cancel_scope.cancel()
    finally:
        context.destroy()


async def test_what_was_lost_is_asked_for() -> None:
    async with told() as two:
        two.tell(5)
        assert await two.bring(0) == [0]
        assert await two.bring(3) == [1, 2, 3, 4]
        assert await two.bring(4) == []  # the replay has brought it
        two.tell(1)
        assert await two.bring(5) == [5]


async def test_what_is_kept_no_longer_is_told() -> None:
    async with told() as two:
        assert await two.bring(0) == [0]
        two.tell(8)
        with pytest.raises(ReplayTruncated) as truncated:
            await two.bring(7)
        assert truncated.value.first_seq == 3


async def test_without_anybody_to_ask_a_gap_is_told() -> None:
    async with told() as two:
        two.reader = _Reader(zmq.asyncio.Context.instance(), None)
        assert await two.bring(0) == [0]
        with pytest.raises(ReplayTruncated, match="nobody to ask"):
            await two.bring(2)


@pytest.mark.parametrize("again", [(0, 0.0), (2, 99.0), (1, 99.0)])
async def test_a_publisher_that_began_anew_is_told(again: tuple[int, float]) -> None:
    async with told() as two:
        two.tell(3)
        assert await two.bring(0) == [0]
        assert await two.bring(1) == [1]
        assert await two.bring(2) == [2]
        with pytest.raises(ReplayTruncated, match="anew"):
            await two.bring(*again)


async def test_a_replay_that_is_asked_for_wrongly_is_ignored() -> None:
    async with told() as two:
        two.tell(1)
        with zmq.asyncio.Context.instance().socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(two.publisher.replay_endpoint)
            await socket.send_multipart((b"", b"1"))
            await socket.send_multipart((b"", seq_frame(-5)))
            assert (await socket.recv_multipart())[-2] == seq_frame(0)
            assert (await socket.recv_multipart())[-2] == seq_frame(END_SEQ)


async def test_the_topic_and_the_rank_are_published() -> None:
    async with told() as two:
        two.tell(1)
        batches = subscribe(two.publisher.endpoint, two.publisher.replay_endpoint, topic="kv", after=-1)
        async with aclosing(batches):
            assert await anext(batches) == EventBatch(0, 0.0, (AllBlocksCleared(),), 1)


async def test_an_address_in_use_leaves_nothing_behind() -> None:
    async with told() as two:
        with pytest.raises(zmq.ZMQError), EventPublisher(EventLog(), ANYWHERE, two.publisher.endpoint):
            raise AssertionError("two publishers have one address")


def test_without_pyzmq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("penstock.kv.publishing", "penstock.kv.subscribing"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(ImportError, match=r"penstock\[kv-events\]"):
        getattr(kv_room, "subscribe")  # noqa: B009 - it is loaded by its name
    assert kv_room.BlockPool is BlockPool


def test_the_public_names_are_sorted_and_can_be_had() -> None:
    assert sorted(kv_room.__all__) == kv_room.__all__
    assert set(kv_room.__all__) <= set(dir(kv_room))
    assert all(getattr(kv_room, name) for name in kv_room.__all__)
    with pytest.raises(AttributeError, match="BlockPol"):
        getattr(kv_room, "BlockPol")  # noqa: B009 - type checkers know that it is not there
