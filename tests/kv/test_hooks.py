"""Hooks hear of everything, forbid some of it, and do no harm."""

from __future__ import annotations

import logging
import time

import pytest

from kv.asking import BLOCK, move, params
from penstock.errors import AuthoringError, CallError, ErrorCode
from penstock.kv import BlockPool, KVHookEvent, KVHookPoint, KVVeto
from penstock.protocol.kv import KVEvictReason


@pytest.fixture
def pool() -> BlockPool:
    return BlockPool(4, BLOCK, "gpu", tiers={"cpu": 4})


def listen(pool: BlockPool) -> list[KVHookEvent]:
    heard: list[KVHookEvent] = []
    for point in KVHookPoint:
        pool.hooks.on(point, heard.append)
    return heard


def test_every_point_is_passed_and_numbered(pool: BlockPool) -> None:
    heard = listen(pool)
    handle = pool.allocate(params(16), range(16))
    pool.pin(handle)
    pool.touch(handle)
    pool.unpin(handle)
    moved = pool.migrate(move(handle, "cpu"))
    pool.free(moved)
    pool.prefetch(params(16), range(16))
    pool.evict(1)
    pool.clear()
    assert [event.point.value for event in heard] == [
        *("before_allocate", "stored", "after_allocate"),
        *("pinned", "touched", "unpinned"),
        *("before_migrate", "removed", "stored", "after_migrate"),
        *("before_free", "after_free"),
        *("before_prefetch", "stored", "after_prefetch"),
        *("before_evict", "removed", "after_evict"),
        "cleared",
    ]
    assert {event.point for event in heard} == set(KVHookPoint)
    assert [event.seq for event in heard] == list(range(len(heard)))


def test_what_is_told_is_what_happened(pool: BlockPool) -> None:
    pool.free(pool.allocate(params(8), range(8)))
    heard = listen(pool)
    handle = pool.allocate(params(10, "mine"), range(10))
    before, after = heard[0], heard[-1]
    assert (before.request_id, before.num_tokens, before.num_blocks, before.handle) == ("mine", 10, 3, None)
    assert (after.handle, after.reused_tokens, after.success, after.device) == (handle, 8, True, "gpu")
    assert after.elapsed_s > 0


def test_a_failure_is_told_after_it(pool: BlockPool) -> None:
    heard = listen(pool)
    with pytest.raises(CallError) as raised:
        pool.allocate(params(17))
    assert heard[-1].point is KVHookPoint.AFTER_ALLOCATE
    assert (heard[-1].success, heard[-1].error) == (False, raised.value)


@pytest.mark.parametrize("point", ["before_allocate", "before_evict", "before_migrate"])
def test_a_veto_stops_it_and_nothing_is_changed(pool: BlockPool, point: str) -> None:
    pool.free(pool.allocate(params(8), range(8)))
    handle = pool.allocate(params(8), range(1, 9))
    take_away = pool.hooks.on(point, lambda _: KVVeto("the moon is full"))
    asked: list[str] = []
    pool.hooks.on(point, lambda event: asked.append(event.point.value))
    before = pool.snapshot(), pool.stats().tiers
    does = {
        "before_allocate": lambda: pool.allocate(params(1)),
        "before_evict": lambda: pool.evict(1),
        "before_migrate": lambda: pool.migrate(move(handle, "cpu")),
    }
    with pytest.raises(CallError, match="the moon is full") as raised:
        does[point]()
    assert raised.value.code is ErrorCode.FAILED_PRECONDITION
    assert (pool.snapshot(), pool.stats().tiers) == before
    assert asked == []
    pool.check()
    take_away()
    does[point]()
    assert asked == [point]


def test_a_veto_of_an_eviction_fails_the_allocation(pool: BlockPool) -> None:
    pool.free(pool.allocate(params(16), range(16)))
    pool.hooks.on("before_evict", lambda event: KVVeto(f"not {event.num_blocks}"))
    with pytest.raises(CallError, match="not 2") as raised:
        pool.allocate(params(8))
    assert raised.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert pool.stats().tiers[0].reusable == 4


def test_elsewhere_a_veto_is_nothing(pool: BlockPool) -> None:
    for point in set(KVHookPoint) - {KVHookPoint.BEFORE_ALLOCATE}:
        if "evict" not in point.value:
            pool.hooks.on(point, lambda _: KVVeto("no"))
    pool.free(pool.allocate(params(8), range(8)))
    assert pool.evict(2) == 2


def test_a_hook_that_raises_is_logged_and_harms_nobody(
    pool: BlockPool, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: KVHookEvent) -> None:
        raise RuntimeError("broken")

    for point in KVHookPoint:
        pool.hooks.on(point, broken)
    heard = listen(pool)
    pool.free(pool.allocate(params(16), range(16)))
    pool.free(pool.allocate(params(8), range(1, 9)))
    assert KVHookPoint.AFTER_EVICT in [event.point for event in heard]
    assert len(caplog.records) == len(heard)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    pool.check()


def test_a_hook_cannot_use_the_pool_but_may_look(pool: BlockPool) -> None:
    refused: list[ErrorCode] = []
    seen: list[int] = []

    def reenter(event: KVHookEvent) -> None:
        seen.append(pool.stats().handles)
        try:
            pool.allocate(params(4))
        except CallError as error:
            refused.append(error.code)

    pool.hooks.on("after_allocate", reenter)
    pool.allocate(params(4))
    assert refused == [ErrorCode.FAILED_PRECONDITION]
    assert seen == [1]
    assert pool.stats().handles == 1


def test_a_hook_that_blocks_is_told_of(pool: BlockPool, caplog: pytest.LogCaptureFixture) -> None:
    pool.hooks.on("before_free", lambda _: time.sleep(0.06))
    pool.free(pool.allocate(params(4)))
    assert ["held the pool up" in record.getMessage() for record in caplog.records] == [True]


def test_why_it_was_evicted_is_told(pool: BlockPool) -> None:
    reasons: list[KVEvictReason | None] = []
    pool.hooks.on("after_evict", lambda event: reasons.append(event.evict_reason))
    pool.free(pool.allocate(params(16), range(16)))
    pool.evict(1)
    pool.allocate(params(8))
    assert reasons == [KVEvictReason.EXPLICIT_FREE, KVEvictReason.MEMORY_PRESSURE]


def test_a_hook_is_a_plain_function_at_a_known_point(pool: BlockPool) -> None:
    async def hook(event: KVHookEvent) -> None: ...

    with pytest.raises(AuthoringError, match="plain function"):
        pool.hooks.on("stored", hook)  # type: ignore[arg-type]
    with pytest.raises(AuthoringError, match="before_allocate"):
        pool.hooks.on("alocate", print)


def test_the_same_hook_twice_is_called_twice(pool: BlockPool) -> None:
    heard: list[KVHookEvent] = []
    take_away = pool.hooks.on("before_free", heard.append)
    pool.hooks.on("before_free", heard.append)
    pool.free(pool.allocate(params(4)))
    take_away()
    take_away()
    pool.free(pool.allocate(params(4)))
    assert len(heard) == 3
