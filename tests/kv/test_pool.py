"""What a pool gives, and how it refuses what makes no sense.  That it works at all is for the properties."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from kv.asking import BLOCK, move, params
from penstock.errors import CallError, ErrorCode, LocalProtocolError
from penstock.kv import BlockPool, Ttl
from penstock.protocol.kv import KVAllocateParams, KVDType, KVEvictReason, KVHandle


@pytest.fixture
def pool() -> BlockPool:
    return BlockPool(8, BLOCK, "gpu", tiers={"cpu": 2})


def code_of(work: Callable[[], object]) -> ErrorCode:
    with pytest.raises(CallError) as raised:
        work()
    return raised.value.code


def test_a_prefix_is_shared_in_full_blocks(pool: BlockPool) -> None:
    first = pool.allocate(params(10), range(10))
    second = pool.allocate(params(10), range(10))
    assert (first.reused_tokens, second.reused_tokens) == (0, 8)
    assert pool.blocks(first)[:2] == pool.blocks(second)[:2]
    assert pool.blocks(first)[2] != pool.blocks(second)[2]
    assert pool.stats().prefix_hit_rate == 8 / 20


@pytest.mark.parametrize("other", [{"salt": "b"}, {"adapter": "b"}])
def test_nothing_is_shared_between_tenants_or_adapters(pool: BlockPool, other: dict[str, str]) -> None:
    names = {"salt": "a", "adapter": "a"}
    pool.free(pool.allocate(params(8), range(8), **names))
    assert pool.allocate(params(8), range(8), **{**names, **other}).reused_tokens == 0
    assert pool.allocate(params(8), range(8), **names).reused_tokens == 8


def test_nothing_is_shared_between_number_formats(pool: BlockPool) -> None:
    pool.free(pool.allocate(params(8), range(8)))
    assert pool.allocate(params(8, kv_dtype=KVDType.FP8), range(8)).reused_tokens == 0


def test_a_handle_is_dumped_as_one_of_v01(pool: BlockPool) -> None:
    pool.free(pool.allocate(params(8), range(8)))
    handle = pool.allocate(params(8), range(8))
    assert handle.reused_tokens == 8
    assert set(handle.model_dump()) == set(KVHandle.model_fields)
    pool.free(KVHandle.model_validate_json(handle.model_dump_json()))
    assert pool.stats().handles == 0


def test_a_block_that_gets_full_is_shared_with_the_one_that_is_cached(pool: BlockPool) -> None:
    first = pool.allocate(params(8), range(8))
    second = pool.allocate(params(8), range(6))
    own = pool.blocks(second)
    pool.extend(second, [6, 7])
    assert pool.blocks(second) == pool.blocks(first) != own
    assert pool.stats().tiers[0].held == 2


def test_freed_prefixes_are_found_until_others_need_the_blocks(pool: BlockPool) -> None:
    pool.free(pool.allocate(params(16), range(16)))
    pool.allocate(params(24, "other"))  # two of four cached blocks must go: the end of the prefix
    assert pool.stats().evicted_blocks == {"memory_pressure": 2}
    assert pool.allocate(params(8), range(16)[:8]).reused_tokens == 8


def test_what_is_not_kept_in_the_cache_is_gone_at_once(pool: BlockPool) -> None:
    kept = pool.allocate(params(8), range(8))
    pool.free(pool.allocate(params(16), range(16)), keep_in_cache=False)
    assert pool.stats().tiers[0].cached == 2
    pool.free(kept)
    assert pool.allocate(params(16), range(16)).reused_tokens == 8


def test_a_block_over_its_time_is_not_found() -> None:
    now = 0.0
    pool = BlockPool(8, BLOCK, policy=Ttl(10), clock=lambda: now)
    pool.free(pool.allocate(params(8), range(8)))
    now = 9.9
    pool.free(pool.allocate(params(8), range(8)))
    now = 19.8
    assert pool.allocate(params(4), range(4)).reused_tokens == 4
    now = 30.0
    assert pool.allocate(params(8), range(8)).reused_tokens == 4  # the first block is held all the while
    assert pool.stats().evicted_blocks == {"ttl_expired": 1}


def test_a_pinned_handle_is_freed_by_force_only(pool: BlockPool) -> None:
    handle = pool.allocate(params(8), range(8))
    assert (pool.pin(handle), pool.pin(handle), pool.unpin(handle)) == (1, 2, 1)
    assert code_of(lambda: pool.free(handle)) is ErrorCode.FAILED_PRECONDITION
    assert pool.stats().pinned == 1
    pool.free(handle, force=True)
    assert pool.stats().handles == 0
    assert code_of(lambda: pool.unpin(handle)) is ErrorCode.NOT_FOUND


def test_all_pinned_leaves_nothing_to_allocate(pool: BlockPool) -> None:
    for number in range(4):
        pool.pin(pool.allocate(params(8), range(number, number + 8)))
    with pytest.raises(CallError, match="1 more blocks are needed on gpu") as raised:
        pool.allocate(params(1))
    assert raised.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert raised.value.retryable
    assert pool.evict(100) == 0
    assert pool.stats().refusals == 1
    pool.check()


@pytest.mark.parametrize("num_tokens", [33, 10**30])
def test_what_never_fits_is_not_to_be_tried_again(pool: BlockPool, num_tokens: int) -> None:
    asked = KVAllocateParams.model_construct(**{**dict(params(1)), "num_tokens": num_tokens})
    with pytest.raises(CallError, match="make the pool larger") as raised:
        pool.allocate(asked)
    assert raised.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert not raised.value.retryable


@pytest.mark.parametrize(
    "asked",
    [{"num_tokens": 0}, {"num_tokens": -1}, {"num_tokens": 1.5}, {"num_tokens": True}, {"block_size": 5}],
)
def test_senseless_sizes_are_refused(pool: BlockPool, asked: dict[str, Any]) -> None:
    unchecked = KVAllocateParams.model_construct(**{**dict(params(8)), **asked})
    assert code_of(lambda: pool.allocate(unchecked)) is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("tokens", [range(9), [-1], [2**32], [0.5], ["a"], b"abcd", [None]])
def test_senseless_tokens_are_refused(pool: BlockPool, tokens: Any) -> None:
    handle = pool.allocate(params(8))
    before = pool.stats()
    assert code_of(lambda: pool.allocate(params(8), tokens)) is ErrorCode.INVALID_ARGUMENT
    if tokens != range(9):
        assert code_of(lambda: pool.extend(handle, tokens)) is ErrorCode.INVALID_ARGUMENT
    assert pool.stats().tiers == before.tiers
    pool.check()


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 4),
        (-1, 4),
        (8, 0),
        (2**31, 4),
        (True, 4),
        ("8", 4),
        (8, 4, "gpu", {"gpu": 1}),
        (8, 4, "a", {"b": 0}),
    ],
)
def test_senseless_pools_are_refused(arguments: tuple[Any, ...]) -> None:
    tiers = arguments[3] if len(arguments) > 3 else None
    assert code_of(lambda: BlockPool(*arguments[:3], tiers=tiers)) is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("policy", ["mru", "", Ttl])
def test_only_policies_that_are_there_can_be_had(policy: Any) -> None:
    assert code_of(lambda: BlockPool(1, 1, policy=policy)) is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf")])
def test_a_time_to_live_is_positive_and_finite(ttl_s: float) -> None:
    assert code_of(lambda: Ttl(ttl_s)) is ErrorCode.INVALID_ARGUMENT


def test_other_senseless_numbers_are_refused(pool: BlockPool) -> None:
    handle = pool.allocate(params(8))
    for work in (
        lambda: pool.evict(-1),
        lambda: pool.evict(1, device="tpu"),
        lambda: pool.extend(handle, num_tokens=-1),
        lambda: pool.allocate(params(1), priority=2**31),
        lambda: pool.migrate(move(handle, "tpu")),
    ):
        assert code_of(work) is ErrorCode.INVALID_ARGUMENT
    assert pool.stats().handles == 1


USES: list[Callable[[BlockPool, KVHandle], object]] = [
    lambda pool, handle: pool.free(handle),
    lambda pool, handle: pool.free(handle, force=True),
    lambda pool, handle: pool.extend(handle, [1]),
    lambda pool, handle: pool.pin(handle),
    lambda pool, handle: pool.unpin(handle),
    lambda pool, handle: pool.touch(handle),
    lambda pool, handle: pool.blocks(handle),
    lambda pool, handle: pool.migrate(move(handle, "cpu")),
]


@pytest.mark.parametrize("use", USES)
def test_a_handle_that_is_not_good_does_nothing(pool: BlockPool, use: Callable[..., object]) -> None:
    freed = pool.allocate(params(8))
    pool.free(freed)
    others = BlockPool(8, BLOCK, "gpu").allocate(params(8))
    mine = pool.allocate(params(8, "mine"))
    stolen = mine.model_copy(update={"request_id": "thief"})
    assert code_of(lambda: use(pool, freed)) is ErrorCode.NOT_FOUND
    assert code_of(lambda: use(pool, others)) is ErrorCode.NOT_FOUND
    assert code_of(lambda: use(pool, stolen)) is ErrorCode.PERMISSION_DENIED
    assert pool.stats().handles == 1
    pool.check()


def test_a_full_device_takes_nothing_and_the_handle_stays(pool: BlockPool) -> None:
    first, second = pool.allocate(params(8), range(8)), pool.allocate(params(8), range(1, 9))
    assert pool.migrate(move(first, "cpu")).device == "cpu"
    assert code_of(lambda: pool.migrate(move(second, "cpu"))) is ErrorCode.RESOURCE_EXHAUSTED
    assert len(pool.blocks(second)) == 2
    assert [tier.held for tier in pool.stats().tiers] == [2, 2]
    pool.check()


def test_what_was_moved_away_is_fetched_back(pool: BlockPool) -> None:
    pool.free(pool.migrate(move(pool.allocate(params(8), range(8)), "cpu")))
    assert pool.stats().tiers[0].cached == 0
    assert pool.prefetch(params(12), range(12)) == 8
    assert pool.allocate(params(12), range(12)).reused_tokens == 8


def test_clear_frees_what_is_in_use_by_force_only(pool: BlockPool) -> None:
    handle = pool.allocate(params(8), range(8))
    pool.pin(handle)
    assert code_of(pool.clear) is ErrorCode.FAILED_PRECONDITION
    assert pool.clear(force=True) == 2
    assert code_of(lambda: pool.free(handle)) is ErrorCode.NOT_FOUND
    assert [tier.blank for tier in pool.stats().tiers] == [8, 2]
    pool.check()


def test_reasons_are_those_of_v01(pool: BlockPool) -> None:
    pool.free(pool.allocate(params(8), range(8)))
    assert pool.evict(1, KVEvictReason.TTL_EXPIRED) == 1
    assert pool.stats().evicted_blocks == {"ttl_expired": 1}
    with pytest.raises(ValueError, match="boredom"):
        pool.evict(1, "boredom")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "harm",
    [
        lambda tier: tier.blank.pop(),
        lambda tier: tier.blank.append(tier.blank[0]),
        lambda tier: tier.index.popitem(),
        lambda tier: tier.refs.__setitem__(0, 2),
        lambda tier: tier.children.__setitem__(0, 7),
        lambda tier: tier.parents.__setitem__(1, -1),
        lambda tier: setattr(tier, "reusable", 3),
    ],
)
def test_the_check_sees_wrong_books(pool: BlockPool, harm: Callable[[Any], object]) -> None:
    pool.allocate(params(8), range(8))
    pool.check()
    harm(pool._main)
    with pytest.raises(LocalProtocolError, match="gpu"):
        pool.check()


def test_a_use_that_is_not_kept_counts_for_the_blocks_before_it(pool: BlockPool) -> None:
    shared, follower, other, gone = [0] * 4, [1] * 4, [2] * 4, [3] * 4
    pool.free(pool.allocate(params(8), shared + follower))
    pool.free(pool.allocate(params(4), other))
    pool.free(pool.allocate(params(8), shared + gone), keep_in_cache=False)
    assert pool.evict(2) == 2
    assert pool.allocate(params(8), shared + follower).reused_tokens == 4
    assert pool.allocate(params(4), other).reused_tokens == 0


def test_a_handle_that_learns_its_tokens_later_finds_what_is_cached(pool: BlockPool) -> None:
    pool.free(pool.allocate(params(8), range(8)))
    blind = pool.allocate(params(20))
    told = pool.extend(blind, range(9))
    assert (told.reused_tokens, told.num_tokens) == (8, 20)
    assert pool.extend(told, [9]).reused_tokens == 8
    assert (pool.stats().queried_tokens, pool.stats().reused_tokens) == (17, 8)
    trimmed = pool.trim(told, 11)
    assert (trimmed.num_tokens, len(pool.blocks(told))) == (11, 3)
    assert pool.trim(told, 100).num_tokens == 11
    pool.check()


@pytest.mark.parametrize("num_tokens", [0, -1, 9, True, 2.5])
def test_known_tokens_are_not_trimmed_away(pool: BlockPool, num_tokens: Any) -> None:
    handle = pool.allocate(params(12), range(10))
    assert code_of(lambda: pool.trim(handle, num_tokens)) is ErrorCode.INVALID_ARGUMENT
    pool.free(handle)
    assert code_of(lambda: pool.trim(handle, 10)) is ErrorCode.NOT_FOUND


def test_the_hottest_prefixes_are_those_most_requests_begin_with(pool: BlockPool) -> None:
    for begin, times in ((0, 3), (100, 2)):
        for _ in range(times + 1):
            pool.free(pool.allocate(params(9), range(begin, begin + 9)))
    hottest = pool.hottest()
    assert [(prefix.num_tokens, prefix.uses) for prefix in hottest] == [(8, 3), (8, 2)]
    assert [prefix.uses for prefix in pool.hottest(1)] == [3]
    pool.clear()
    assert pool.hottest() == []


def test_it_remembers_a_bounded_number_of_prefixes() -> None:
    pool = BlockPool(4096, BLOCK)
    for number in range(1000):
        for _ in range(3 if number == 500 else 2):
            pool.free(pool.allocate(params(4), [number] * 4))
    assert len(pool.hottest(10_000)) <= 256
    assert pool.hottest(1)[0].uses == 2


def test_a_pool_that_has_long_been_full_takes_no_more_memory_than_its_blocks_need() -> None:
    pool = BlockPool(6000, BLOCK)
    for number in range(12):
        pool.free(pool.allocate(params(12_000), range(number, number + 12_000)))
    pool.check()
    [tier] = pool._cache.tiers.values()
    assert tier.reusable == 6000
    assert sys.getsizeof(tier.index) == sys.getsizeof(dict.fromkeys(range(6000)))
    assert pool.allocate(params(12_000), range(11, 12_011)).reused_tokens == 12_000
