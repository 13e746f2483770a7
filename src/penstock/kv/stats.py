"""What a pool says of itself, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from penstock.kv.tiers import Tier
from penstock.protocol.kv import KVEvictReason


class TierStats(msgspec.Struct, frozen=True):
    """The blocks of one device, each held, reusable or blank; one that is cached may be held."""

    device: str
    num_blocks: int
    held: int
    reusable: int
    blank: int
    cached: int


class PoolStats(msgspec.Struct, frozen=True):
    """A pool now (tiers, handles, pinned handles), and all that it has done since it was made."""

    block_size: int
    policy: str
    tiers: tuple[TierStats, ...]
    handles: int
    pinned: int
    allocations: int
    refusals: int
    queried_tokens: int
    reused_tokens: int
    stored_blocks: int
    migrated_blocks: int
    prefetched_blocks: int
    evicted_blocks: Mapping[str, int]

    @property
    def prefix_hit_rate(self) -> float:
        """The part of all tokens asked with that were found in the cache; 0.0 before the first."""
        return self.reused_tokens / self.queried_tokens if self.queried_tokens else 0.0


@dataclass
class Counts:
    """What the pool counts while it works."""

    allocations: int = 0
    refusals: int = 0
    queried_tokens: int = 0
    reused_tokens: int = 0
    stored_blocks: int = 0
    migrated_blocks: int = 0
    prefetched_blocks: int = 0
    evicted_blocks: Counter[KVEvictReason] = field(default_factory=Counter)


def tier_stats(tier: Tier) -> TierStats:
    """Count the blocks of a device."""
    blank = len(tier.blank)
    held = tier.num_blocks - blank - tier.reusable
    return TierStats(tier.device, tier.num_blocks, held, tier.reusable, blank, len(tier.index))
