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
