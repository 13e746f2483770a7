"""What can be asked of a pool at any time, by its hooks too: nothing here changes anything."""

from __future__ import annotations

from penstock.kv.cache import Cache
from penstock.kv.check import check_tier
from penstock.kv.handles import Leases
from penstock.kv.hot import HotPrefix
from penstock.kv.stats import PoolStats, tier_stats
from penstock.protocol.kv import KVHandle


class Books:
    """The books of a pool.

    Args:
        cache: What is cached where.
        block_size: Tokens in a block.
    """

    def __init__(self, cache: Cache, block_size: int) -> None:
        self._cache = cache
        self._main = next(iter(cache.tiers.values()))
        self._leases = Leases()
        self.block_size = block_size
        self.events = cache.events

    @property
    def num_blocks(self) -> int:
        """How many blocks there are where requests run."""
        return self._main.num_blocks

    @property
    def available(self) -> int:
        """How many of those can be had, once the reusable ones are given up."""
        return self._main.available

    def blocks(self, handle: KVHandle) -> tuple[int, ...]:
        """Return the numbers of a handle's blocks, in the order of its tokens."""
        return tuple(self._leases.find(handle).blocks)

    def snapshot(self) -> tuple[int, dict[str, tuple[bytes, ...]]]:
        """Return the number of the next event, and the hashes that are cached on each device until then."""
        media = {tier.device: tuple(tier.index) for tier in self._cache.tiers.values()}
        return self.events.next_seq, media

    def hottest(self, limit: int = 10) -> list[HotPrefix]:
        """Return the cached prefixes with which most requests were found to begin, the hottest first."""
        indexes = [tier.index for tier in self._cache.tiers.values()]
        return self._cache.hot.first(limit, lambda name: any(name in index for index in indexes))

    def stats(self) -> PoolStats:
        """Return what the pool is and has done, in numbers."""
        counts, tiers = self._cache.counts, tuple(self._cache.tiers.values())
        return PoolStats(
            block_size=self.block_size,
            policy=tiers[0].policy.name,
            tiers=tuple(map(tier_stats, tiers)),
            handles=len(self._leases),
            pinned=sum(bool(lease.pins) for lease in self._leases),
            allocations=counts.allocations,
            refusals=counts.refusals,
            queried_tokens=counts.queried_tokens,
            reused_tokens=counts.reused_tokens,
            stored_blocks=counts.stored_blocks,
            migrated_blocks=counts.migrated_blocks,
            prefetched_blocks=counts.prefetched_blocks,
            evicted_blocks={why.value: count for why, count in counts.evicted_blocks.items()},
        )

    def check(self) -> None:
        """Count everything anew, which takes as long as the pool is large; for tests and for a suspicion.

        Raises:
            LocalProtocolError: A block leaked or is in two states, or a chain is broken: a bug here.
        """
        for tier in self._cache.tiers.values():
            check_tier(tier, [lease for lease in self._leases if lease.tier is tier], self.block_size)
