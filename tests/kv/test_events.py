"""Events are numbered without a gap, kept for a while, and told as they come."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.asking import BLOCK, params
from penstock.errors import CallError, RemoteProtocolError, ReplayTruncated
from penstock.kv import (
    AllBlocksCleared,
    BlockPool,
    BlockRemoved,
    BlockStored,
    EventLog,
    NumberedEvent,
    PrefixIndex,
    chain_hashes,
    chain_root,
    follow,
    ndjson_lines,
    pack_tokens,
    read_ndjson_line,
)
from penstock.kv.chain import unpack_tokens
from penstock.protocol.kv import KVDType, KVLayout

pytestmark = pytest.mark.anyio

NAMES = st.binary(min_size=1, max_size=32) | st.integers(0, 2**63 - 1)
NAMED = st.lists(NAMES, max_size=4).map(tuple)
MEDIA = st.none() | st.text(max_size=5)
NUMBERS = st.lists(st.integers(0, 2**32 - 1), max_size=8)
EVENTS = st.one_of(
    st.builds(
        BlockStored,
        NAMED,
        st.none() | NAMES,
        NUMBERS.map(tuple),
        st.integers(1, 1024),
        st.none() | st.integers(0, 9),
        MEDIA,
        MEDIA,
    ),
    st.builds(BlockRemoved, NAMED, MEDIA),
    st.just(AllBlocksCleared()),
)


def log_of(count: int, **bounds: int) -> EventLog:
    log = EventLog(**bounds)
    for number in range(count):
        log.removed([bytes([number])], device="gpu", timestamp=float(number))
    return log


def test_the_events_of_a_pool_are_those_of_its_blocks() -> None:
    pool = BlockPool(4, BLOCK, "gpu")
    pool.free(pool.allocate(params(10), range(10), adapter="fox"))
    pool.free(pool.allocate(params(16), range(16), adapter="fox"))
    pool.evict(1)
    pool.clear()
    root = chain_root("", "fox", KVDType.FP16, KVLayout.BSHD, BLOCK)
    names = chain_hashes(root, pack_tokens(range(16)), BLOCK)
    assert [event.event for event in pool.events.read()] == [
        BlockStored(tuple(names[:2]), None, tuple(range(8)), BLOCK, medium="gpu", lora_name="fox"),
        BlockStored(tuple(names[2:]), names[1], tuple(range(8, 16)), BLOCK, medium="gpu", lora_name="fox"),
        BlockRemoved((names[3],), "gpu"),
        AllBlocksCleared(),
    ]
    assert [event.seq for event in pool.events.read()] == [0, 1, 2, 3]


def test_old_events_go_and_a_late_reader_is_told() -> None:
    log = log_of(5, max_events=3)
    assert [event.seq for event in log.read(1)] == [2, 3, 4]
    assert [event.seq for event in log.read(2, limit=1)] == [3]
    assert log.read(4) == []
    with pytest.raises(ReplayTruncated, match="2 to 4") as truncated:
        log.read(0)
    assert truncated.value.first_seq == 2


def test_a_reader_of_another_life_is_told() -> None:
    with pytest.raises(ReplayTruncated):
        log_of(2).read(2)


def test_blocks_bound_the_log_too_but_the_newest_stays() -> None:
    assert log_of(5, max_blocks=2).first_seq == 3
    log = EventLog(max_blocks=2)
    log.removed([b"1", b"2", b"3"], device="gpu", timestamp=0.0)
    assert len(log.read()) == 1


def test_senseless_bounds_and_numbers_are_refused() -> None:
    for bounds in ({"max_events": 0}, {"max_blocks": -1}):
        with pytest.raises(ValueError, match="more than 0"):
            EventLog(**bounds)
    for asked in ((-2, 1), (-1, 0)):
        with pytest.raises(CallError, match="cannot read"):
            log_of(1).read(*asked)


async def test_events_are_told_as_they_come() -> None:
    pool, heard = BlockPool(4, BLOCK, "gpu"), asyncio.Queue[int]()

    async def hear() -> None:
        async for event in follow(pool.events):
            heard.put_nowait(event.seq)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(hear)
            for seq in range(3):
                pool.free(pool.allocate(params(4), [seq] * 4))
                assert await heard.get() == seq
            group.cancel_scope.cancel()
    assert pool.events._listeners == []


async def test_a_reader_that_is_too_slow_is_told() -> None:
    log = log_of(3, max_events=3)
    reader = follow(log)
    with anyio.fail_after(5):
        assert (await anext(reader)).seq == 0
        for number in range(4):
            log.cleared(timestamp=float(number))
        assert [(await anext(reader)).seq for _ in range(2)] == [1, 2]  # it had them already
        with pytest.raises(ReplayTruncated) as truncated:
            await anext(reader)
    assert truncated.value.first_seq == 4


@given(st.builds(NumberedEvent, st.integers(0, 2**40), st.floats(0, 2e9), EVENTS))
def test_a_line_is_read_as_it_was_written(event: NumberedEvent) -> None:
    line = ndjson_lines([event])
    assert line.count(b"\n") == 1
    assert read_ndjson_line(line) == event


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b'{"seq":0,"timestamp":0,"type":"Blocks"}',
        b'{"seq":"0","timestamp":0,"type":"AllBlocksCleared"}',
        b'{"seq":0,"timestamp":0,"type":"BlockRemoved","block_hashes":["xy"]}',
        b'{"seq":0,"timestamp":0,"type":"BlockRemoved","block_hashes":[null]}',
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="no event"):
        read_ndjson_line(line)


@given(NUMBERS)
def test_tokens_are_unpacked_as_they_were_packed(numbers: list[int]) -> None:
    assert unpack_tokens(pack_tokens(numbers)) == numbers


@given(st.lists(st.integers(0, 9), min_size=300, max_size=300), st.integers(1, 7), st.integers(0, 300))
def test_a_chain_can_be_gone_on_with(numbers: list[int], size: int, cut: int) -> None:
    cut -= cut % size
    root = chain_root("", "", KVDType.FP16, KVLayout.BSHD, size)
    first = chain_hashes(root, pack_tokens(numbers[:cut]), size)
    rest = chain_hashes(first[-1] if first else root, pack_tokens(numbers[cut:]), size)
    assert first + rest == chain_hashes(root, pack_tokens(numbers), size)
    assert len(first + rest) == 300 // size


def test_names_are_the_same_on_every_machine() -> None:
    root = chain_root("tenant", "adapter", KVDType.BF16, KVLayout.BHSD, 2)
    assert root.hex() == "bf22b86bfae91eefb7e9f028c7b582"
    assert [name.hex() for name in chain_hashes(root, pack_tokens([1, 2, 3, 4, 5]), 2)] == [
        "a0a2f2f1bcbbc64456b26064b136af",
        "352d1a78ff8983a18d5759525e11d2",
    ]


def test_an_index_takes_events_in_their_order_only() -> None:
    index, one, two = PrefixIndex(), b"1", b"2"
    stored = BlockStored((one, two), None, (), 1, medium="gpu")
    index.apply(NumberedEvent(0, 0.0, stored))
    assert [index.longest(chain, "gpu") for chain in ([one, two, b"3"], [b"3", one], [])] == [2, 0, 0]
    assert index.longest([one], "cpu") == 0
    for seq in (0, 2):
        with pytest.raises(RemoteProtocolError, match="where 1 was due"):
            index.apply(NumberedEvent(seq, 0.0, AllBlocksCleared()))
    index.apply(NumberedEvent(1, 0.0, BlockRemoved((two, b"never"), "gpu")))
    assert index.hashes("gpu") == {one}
    index.restart(7, {"gpu": [two]})
    index.apply(NumberedEvent(7, 0.0, AllBlocksCleared()))
    assert index.hashes("gpu") == frozenset()
