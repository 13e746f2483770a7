"""Readers and the window: who holds the producer back, who is overrun, and what nobody may lose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode, ReplayTruncated
from penstock.protocol.call import State
from penstock.protocol.dispatch import Batch, FrameReader
from penstock.protocol.messages import CancelReason, OnDisconnect, decode_frame

pytestmark = pytest.mark.anyio
CONTINUE = OnDisconnect(None)
WINDOW = 2000
ITEM = {"chunk": "x" * 400}  # some 550 bytes as a frame: four of them fill the window


async def produce(live: Live, count: int) -> None:
    """What the executor does with an author's items."""
    for _ in range(count):
        live.log.item(ITEM, live.wall())
        if live.log.size >= live.readers.full_at:
            await live.breathe()


async def produce_and_end(live: Live, count: int) -> None:
    await produce(live, count)
    live.complete(has_answer=False)


async def rest(reader: FrameReader) -> list[int]:
    seqs: list[int] = []
    async for batch in reader:
        seqs += range(batch.first_seq, batch.first_seq + len(batch.lines))
    return seqs


async def take(reader: FrameReader) -> Batch:
    with anyio.fail_after(5):
        return await reader.__anext__()


# -- batches -------------------------------------------------------------------------------------------


async def test_a_batch_is_everything_that_is_there(make_live: Callable[..., Live]) -> None:
    live = make_live()
    async with live.reader() as reader:
        live.log.item(1, 0)
        live.log.item(2, 0)
        batch = await take(reader)
        assert (batch.first_seq, len(batch.lines), batch.ending) == (0, 3, None)
        live.complete(has_answer=False)
        batch = await take(reader)
        assert (batch.first_seq, len(batch.lines)) == (3, 1)
        assert batch.ending is live.ending
        with pytest.raises(StopAsyncIteration):
            await reader.__anext__()


async def test_a_reader_waits_for_the_next_frame(make_live: Callable[..., Live]) -> None:
    live = make_live()
    async with live.reader(after=0) as reader:
        tasks = TaskOwner()
        waiting = tasks.start(take(reader))
        await anyio.wait_all_tasks_blocked()
        assert not waiting.done()
        live.log.item(1, 0)
        assert (await waiting).first_seq == 1


@pytest.mark.parametrize("after", [-1, 0, 1, 2, 3])
async def test_a_cursor_gets_exactly_what_follows_it(make_live: Callable[..., Live], after: int) -> None:
    live = make_live()
    live.log.item(1, 0)
    live.log.item(2, 0)
    live.complete(has_answer=False)
    async with live.reader(after) as reader:
        with anyio.fail_after(5):
            assert await rest(reader) == list(range(after + 1, 4))


async def test_a_cursor_behind_the_end_of_a_forgotten_log_ends_at_once(
    make_live: Callable[..., Live],
) -> None:
    live = make_live()
    live.complete(has_answer=False)
    live.log.trim(0)
    async with live.reader(after=1) as reader:
        with anyio.fail_after(5):
            assert await rest(reader) == []


@pytest.mark.parametrize("after", [-2, 1, 99])
async def test_a_cursor_that_is_no_frame_is_refused(make_live: Callable[..., Live], after: int) -> None:
    with pytest.raises(CallError, match="the last one is 0") as refused:
        make_live().reader(after)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_cursor_before_what_is_kept_is_told_where_to_continue(make_live: Callable[..., Live]) -> None:
    live = make_live()
    live.log.item(1, 0)
    live.log.trim(0)
    with pytest.raises(ReplayTruncated) as gone:
        live.reader(0)
    assert gone.value.first_seq == 2


async def test_a_batch_is_no_larger_than_the_window_but_one_frame_always_goes(
    make_live: Callable[..., Live],
) -> None:
    live = make_live(window=WINDOW, on_disconnect=CONTINUE)
    await produce(live, 8)
    live.log.item({"chunk": "y" * 3 * WINDOW}, 0)
    live.complete(has_answer=False)
    sizes = []
    async with live.reader() as reader:
        async for batch in reader:
            assert len(batch.lines) == 1 or sum(map(len, batch.lines)) <= WINDOW
            sizes.append(len(batch.lines))
    assert sum(sizes) == 11
    assert 1 in sizes
    assert max(sizes) > 1


async def test_closing_ends_a_pending_read(make_live: Callable[..., Live]) -> None:
    live = make_live()
    tasks = TaskOwner()
    async with live.reader(after=0) as reader:
        waiting = tasks.start(rest(reader))
        await anyio.wait_all_tasks_blocked()
        reader.close()
        with anyio.fail_after(5):
            assert await waiting == []


async def test_a_read_that_was_cancelled_loses_no_frame(make_live: Callable[..., Live]) -> None:
    live = make_live()
    async with live.reader() as reader:
        assert (await take(reader)).first_seq == 0
        for _ in range(3):
            with anyio.move_on_after(0):
                await reader.__anext__()
        live.log.item(1, 0)
        assert (await take(reader)).first_seq == 1


async def test_a_nudge_gives_an_empty_batch_and_nothing_piles_up(make_live: Callable[..., Live]) -> None:
    live = make_live()
    tasks = TaskOwner()
    async with live.reader(after=0) as reader:
        for _ in range(5):
            waiting = tasks.start(take(reader))
            await anyio.wait_all_tasks_blocked()
            reader.nudge()
            assert await waiting == Batch(1, [], None)
        assert len(live.log._waiting) == 1
        live.log.item(1, 0)
        assert (await take(reader)).first_seq == 1


# -- the window ----------------------------------------------------------------------------------------


async def test_the_producer_waits_for_the_fastest_reader(make_live: Callable[..., Live]) -> None:
    live = make_live(window=WINDOW)
    tasks = TaskOwner()
    async with live.reader() as reader:
        producing = tasks.start(produce_and_end(live, 100))
        await anyio.wait_all_tasks_blocked()
        assert not producing.done()
        assert WINDOW <= live.log.size < 2 * WINDOW
        before = live.log.size
        await take(reader)
        await anyio.wait_all_tasks_blocked()
        assert live.log.size == before  # taken is not yet written: the transport still has it
        await take(reader)
        await anyio.wait_all_tasks_blocked()
        assert before < live.log.size < before + 2 * WINDOW
        with anyio.fail_after(5):
            assert (await rest(reader))[-1] == 101


async def test_a_slow_onlooker_holds_nobody_back_and_learns_that_it_was_overrun(
    make_live: Callable[..., Live],
) -> None:
    live = make_live(window=WINDOW, kept_per_call=2 * WINDOW)
    tasks = TaskOwner()
    async with live.reader() as slow, live.reader() as fast:
        producing = tasks.start(produce(live, 100))
        reading = tasks.start(rest(fast))
        with anyio.fail_after(5):
            await producing
        live.complete(has_answer=False)
        assert await reading == list(range(102))
        assert live.log.kept_size < 4 * WINDOW
        with pytest.raises(ReplayTruncated) as overrun:
            await rest(slow)
        assert overrun.value.first_seq == live.log.first_seq > 1


async def test_the_producer_goes_on_when_the_reader_it_waits_for_leaves(
    make_live: Callable[..., Live],
) -> None:
    live = make_live(window=WINDOW, on_disconnect=CONTINUE)
    tasks = TaskOwner()
    async with live.reader():
        producing = tasks.start(produce(live, 100))
        await anyio.wait_all_tasks_blocked()
        assert not producing.done()
    with anyio.fail_after(5):
        await producing


async def test_the_producer_waits_for_the_next_fastest_when_the_fastest_leaves(
    make_live: Callable[..., Live],
) -> None:
    live = make_live(window=WINDOW)
    tasks = TaskOwner()
    async with live.reader() as slow:
        async with live.reader() as fast:
            producing = tasks.start(produce_and_end(live, 100))
            for _ in range(3):
                await take(fast)
                await anyio.wait_all_tasks_blocked()
        ahead = live.log.size
        await anyio.wait_all_tasks_blocked()
        assert live.log.size == ahead
        assert not producing.done()
        with anyio.fail_after(5):
            assert (await rest(slow)) == list(range(102))


async def test_with_no_reader_nothing_holds_the_producer_and_the_log_is_trimmed(
    make_live: Callable[..., Live],
) -> None:
    live = make_live(window=WINDOW, kept_per_call=3 * WINDOW)
    with anyio.fail_after(5):
        await produce(live, 1000)
    live.trim()
    assert live.log.kept_size <= 3 * WINDOW
    assert live.log.next_seq == 1001


async def test_the_terminal_frame_passes_a_full_window(make_live: Callable[..., Live]) -> None:
    live = make_live(window=WINDOW)
    tasks = TaskOwner()
    async with live.reader() as reader:
        producing = tasks.start(produce(live, 100))
        await anyio.wait_all_tasks_blocked()
        live.cancel(CancelReason.CALLER)
        assert live.end_cut()
        assert live.state is State.CANCELLED
        producing.cancel()
        seqs = await rest(reader)
        assert seqs == list(range(live.log.next_seq))
        assert decode_frame(live.log.read(seqs[-2], 1)[0]).status == "cancelled"


@pytest.mark.parametrize("size", [500, 50_000], ids=["item within the kept size", "item past the kept size"])
async def test_the_fastest_reader_loses_nothing_however_large_the_items(
    make_live: Callable[..., Live], size: int
) -> None:
    live = make_live(window=WINDOW, kept_per_call=4000)
    tasks = TaskOwner()

    async def produce_large() -> None:
        for _ in range(20):
            live.log.item({"chunk": "x" * size}, 0)
            await live.breathe()
        live.complete({"chunk": "x" * size}, has_answer=True)
        live.trim()

    async with live.reader() as reader:
        reading = tasks.start(rest(reader))
        with anyio.fail_after(5):
            await produce_large()
            assert await reading == list(range(22))
        assert live.log.kept_size <= WINDOW + size + 4000


async def test_the_producer_lets_the_loop_turn_even_when_there_is_room(
    make_live: Callable[..., Live],
) -> None:
    live = make_live()
    turned = []
    asyncio.get_running_loop().call_soon(turned.append, True)
    await live.breathe()
    assert turned == [True]


async def test_a_producer_cancelled_at_the_window_leaves_it_usable(make_live: Callable[..., Live]) -> None:
    live = make_live(window=WINDOW, on_disconnect=CONTINUE)
    tasks = TaskOwner()
    async with live.reader() as reader:
        producing = tasks.start(produce(live, 100))
        await anyio.wait_all_tasks_blocked()
        producing.cancel()
        await anyio.wait_all_tasks_blocked()
        await take(reader)
        tasks.start(produce_and_end(live, 100))
        with anyio.fail_after(5):
            await rest(reader)
