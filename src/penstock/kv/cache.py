"""The tiers of a pool together with those who are told of every change: hooks, events, counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from penstock.errors import CallError, ErrorCode
from penstock.kv.chain import TOKEN_BYTES
from penstock.kv.events import EventLog
from penstock.kv.handles import Lease
from penstock.kv.hooks import Hooks, KVHookPoint, KVVeto
from penstock.kv.hot import HotPrefixes
from penstock.kv.stats import Counts
from penstock.kv.tiers import NO_BLOCK, Tier
from penstock.protocol.kv import KVEvictReason


class Cache:
    """What is cached where; every change of it goes through here.

    Args:
        tiers: By device; the first is where requests run.
        block_size: In tokens.
        clock: Seconds that only go forward.
        events: Where the changes are told.
    """

    def __init__(
        self, tiers: Mapping[str, Tier], block_size: int, clock: Callable[[], float], events: EventLog
    ) -> None:
        self.tiers = tiers
        self.block_size = block_size
        self.clock = clock
        self.events = events
        self.hooks = Hooks()
        self.counts = Counts()
        self.hot = HotPrefixes()
        self._age = 0

    def looked_up(self, lease: Lease, shared: int, hashes: Sequence[bytes]) -> None:
        """Count that of a request's tokens, whose full blocks have these hashes, the first ones were found.

        Args:
            shared: How many blocks were.
        """
        lease.reused_tokens = shared * self.block_size
        self.counts.queried_tokens += len(lease.packed) // TOKEN_BYTES
        self.counts.reused_tokens += lease.reused_tokens
        if shared:
            self.hot.found(hashes[shared - 1], lease.reused_tokens)

    def admit(self, tier: Tier, shared: Sequence[int], needed: int) -> list[int]:
        """Hold ``shared`` cached blocks and ``needed`` others, for which reusable ones are given up.

        Raises:
            CallError: ``resource_exhausted``: there are not so many, or a hook forbade to evict; nothing was
                changed.
        """
        if needed > tier.available - len(shared):  # to count those that are idle costs, and is seldom needed
            room = tier.available - tier.idle(shared)
            if needed > room:
                raise _exhausted(tier, needed, room, len(shared))
        missing = needed - len(tier.blank)
        if missing > 0:
            self._ask_to_evict(tier, missing, KVEvictReason.MEMORY_PRESSURE, ErrorCode.RESOURCE_EXHAUSTED)
        tier.hold(shared)
        if missing > 0:
            self._evict(tier, KVEvictReason.MEMORY_PRESSURE, lambda: tier.evict(missing))
        return [*shared, *tier.take(needed)]

    def store(self, tier: Tier, lease: Lease, hashes: Sequence[bytes], first: int) -> None:
        """Put the held blocks of a lease from number ``first`` on, whose hashes these are, into the cache."""
        if not hashes:
            return
        blocks = lease.blocks[first : first + len(hashes)]
        parent = lease.blocks[first - 1] if first else NO_BLOCK
        tier.store(blocks, hashes, parent, self._older())
        lease.full = first + len(hashes)
        step = self.block_size * TOKEN_BYTES
        self.events.stored(
            hashes,
            tier.hashes[parent] if first else None,
            bytes(lease.packed[first * step : lease.full * step]),
            self.block_size,
            device=tier.device,
            adapter=lease.adapter,
            timestamp=time.time(),
        )
        self.counts.stored_blocks += len(hashes)
        self.hooks.fire(
            KVHookPoint.STORED,
            device=tier.device,
            request_id=lease.request_id,
            num_blocks=len(hashes),
            num_tokens=len(hashes) * self.block_size,
            block_hashes=tuple(hashes),
        )

    def release(self, lease: Lease, *, keep: bool) -> None:
        """Let go of all blocks of a lease; what it alone has used leaves the cache unless ``keep``."""
        tier = lease.tier
        cached = lease.cached
        tier.release(cached, self._older(), lease.priority, self.clock())
        tier.give_back(lease.blocks[lease.full :])
        if not keep:
            self._removed(tier, tier.discard(cached))
        lease.blocks, lease.full = [], 0

    def evict(self, tier: Tier, count: int, reason: KVEvictReason) -> int:
        """Give up reusable blocks, as many as there are up to ``count``; return how many.

        Raises:
            CallError: ``failed_precondition``: a hook forbade it; nothing was changed.
        """
        count = min(count, tier.reusable)
        if not count:
            return 0
        self._ask_to_evict(tier, count, reason, ErrorCode.FAILED_PRECONDITION)
        return self._evict(tier, reason, lambda: tier.evict(count))

    def expire(self, tier: Tier) -> None:
        """Give up what is over its time, unless a hook forbids it."""
        now = self.clock()
        if not tier.expired(now):
            return
        reason = KVEvictReason.TTL_EXPIRED
        veto = self.hooks.fire(KVHookPoint.BEFORE_EVICT, device=tier.device, evict_reason=reason)
        if veto is None:
            self._evict(tier, reason, lambda: tier.expire(now))

    def clear(self) -> int:
        """Empty the cache, of which nobody holds anything; return how many blocks were in it."""
        dropped = sum(len(tier.evict(tier.reusable)) for tier in self.tiers.values())
        self.events.cleared(timestamp=time.time())
        self.hooks.fire(KVHookPoint.CLEARED, num_blocks=dropped)
        return dropped

    def _ask_to_evict(self, tier: Tier, count: int, reason: KVEvictReason, code: ErrorCode) -> None:
        veto = self.hooks.fire(
            KVHookPoint.BEFORE_EVICT, device=tier.device, num_blocks=count, evict_reason=reason
        )
        if veto is not None:
            raise vetoed(f"evict {count} blocks of {tier.device}", veto, code)

    def _evict(self, tier: Tier, reason: KVEvictReason, work: Callable[[], list[bytes]]) -> int:
        began = self.clock()
        gone = work()
        self.counts.evicted_blocks[reason] += len(gone)
        self._removed(tier, gone)
        self.hooks.fire(
            KVHookPoint.AFTER_EVICT,
            device=tier.device,
            num_blocks=len(gone),
            evict_reason=reason,
            elapsed_s=self.clock() - began,
        )
        return len(gone)

    def _removed(self, tier: Tier, hashes: Sequence[bytes]) -> None:
        if hashes:
            self.events.removed(hashes, device=tier.device, timestamp=time.time())
            self.hooks.fire(
                KVHookPoint.REMOVED,
                device=tier.device,
                num_blocks=len(hashes),
                block_hashes=tuple(hashes),
            )

    def _older(self) -> int:
        self._age += 1
        return self._age


def vetoed(what: str, veto: KVVeto, code: ErrorCode = ErrorCode.FAILED_PRECONDITION) -> CallError:
    """Return the error of an operation that a hook forbade."""
    return CallError(f"a hook forbade to {what}: {veto.reason}", code)


def _exhausted(tier: Tier, needed: int, room: int, shared: int) -> CallError:
    text = f"{needed} more blocks are needed on {tier.device}, which has {tier.num_blocks}"
    if needed + shared > tier.num_blocks:
        advice = "ask for fewer tokens, or make the pool larger"
        return CallError(f"{text}; {advice}", ErrorCode.RESOURCE_EXHAUSTED, retryable=False)
    return CallError(f"{text}, and {room} can be had; free handles first", ErrorCode.RESOURCE_EXHAUSTED)
