"""What an ended call lets go of."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

from penstock.calls.live import Live
from penstock.protocol.messages import CancelReason

pytestmark = pytest.mark.anyio
MakeLive = Callable[..., Live]


class Watcher:
    """Whoever is told of cuts and ends."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def tell(self, what: object) -> None:
        self.told.append(what)


async def test_an_ended_call_holds_nobody_who_waited_for_it(make_live: MakeLive) -> None:
    live, watcher = make_live(), Watcher()
    live.on_cut(watcher.tell)
    live.on_end(watcher.tell)
    live.complete(has_answer=False)
    assert watcher.told == [live]
    watcher.told.clear()
    gone = weakref.ref(watcher)
    del watcher
    gc.collect()
    assert gone() is None


async def test_a_cut_that_ends_the_call_at_once_keeps_none_of_the_others_from_knowing(
    make_live: MakeLive,
) -> None:
    live, watcher = make_live(), Watcher()
    live.on_cut(lambda _: live.end_cut())
    live.on_cut(watcher.tell)
    live.cancel(CancelReason.CALLER)
    assert watcher.told == [CancelReason.CALLER]


async def test_a_reader_at_the_end_still_reads_all(make_live: MakeLive) -> None:
    live = make_live()
    async with live.reader() as early, live.reader() as late:
        live.log.item({"text": "a"}, 2.0)
        live.complete(has_answer=False)
        first = [line async for batch in early for line in batch.lines]
        early.close()
        assert [line async for batch in late for line in batch.lines] == first
    async with live.reader() as again:
        assert [line async for batch in again for line in batch.lines] == first


async def test_an_ended_call_without_readers_is_a_handful_of_objects(make_live: MakeLive) -> None:
    live = make_live()
    async with live.reader() as reader:
        for number in range(300):
            live.log.item({"number": number}, 2.0)
        live.complete(has_answer=False)
        assert [batch async for batch in reader]
    own = [live, live.log, live.readers]
    reached = {id(part) for whole in own for part in gc.get_referents(whole) if gc.is_tracked(part)}
    assert live.log.next_seq == 302
    assert len(reached) < 30  # 300 frames are one block, and no closure or task hangs on


async def test_a_reader_that_leaves_an_ended_call_again_changes_nothing(make_live: MakeLive) -> None:
    live = make_live()
    live.complete(has_answer=False)
    before = live.record()
    async with live.reader():
        pass
    assert live.record() == before
    assert live.cancel(CancelReason.CALLER) == "already_finished"
