"""Whether the books of a device are right: everything is counted anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.errors import LocalProtocolError
from penstock.kv.chain import chain_hashes
from penstock.kv.handles import Lease
from penstock.kv.tiers import NO_BLOCK, Tier


def check_tier(tier: Tier, leases: Sequence[Lease], block_size: int) -> None:
    """Compare a device's books with the leases on it.

    Raises:
        LocalProtocolError: They differ; the message says where.
    """
    _check_states(tier, leases)
    _check_index(tier)
    for lease in leases:
        _check_lease(tier, lease, block_size)


def _check_states(tier: Tier, leases: Sequence[Lease]) -> None:
    holders = Counter(block for lease in leases for block in lease.blocks)
    blank = Counter(tier.blank)
    reusable = 0
    for block in range(tier.num_blocks):
        cached = tier.hashes[block] is not None
        idle = cached and not tier.refs[block]
        reusable += idle
        _same(tier, block, "holders", tier.refs[block], holders[block])
        _same(tier, block, "states", blank[block] + bool(holders[block]) + idle, 1)
        _same(tier, block, "hashes while blank", bool(blank[block] and cached), False)
    _same(tier, NO_BLOCK, "reusable blocks", tier.reusable, reusable)


def _check_index(tier: Tier) -> None:
    known = {name: block for block, name in enumerate(tier.hashes) if name is not None}
    if known != tier.index:
        raise LocalProtocolError(f"{tier.device}: the index is not what the blocks say")
    children = Counter(tier.parents[block] for block in known.values())
    for block in known.values():
        parent = tier.parents[block]
        _same(tier, block, "followers", tier.children[block], children[block])
        _same(tier, block, "lost parents", parent != NO_BLOCK and tier.hashes[parent] is None, False)
        if tier.eviction_key(block) is not None:
            _same(tier, block, "places in the queue", bool(tier.queue.queued[block]), True)


def _check_lease(tier: Tier, lease: Lease, block_size: int) -> None:
    _same(tier, NO_BLOCK, "blocks of a handle", len(lease.blocks), -(-lease.num_tokens // block_size))
    names = chain_hashes(lease.root, bytes(lease.packed), block_size)
    if names != [tier.hashes[block] for block in lease.cached]:
        raise LocalProtocolError(f"{tier.device}: the chain of {lease.handle_id} is broken")
    parent = NO_BLOCK
    for block in lease.cached:
        _same(tier, block, "parent", tier.parents[block], parent)
        parent = block
    for block in lease.blocks[lease.full :]:
        _same(tier, block, "users of a block that is not cached", tier.refs[block], 1)
        _same(tier, block, "hashes", tier.hashes[block], None)


def _same(tier: Tier, block: int, what: str, found: object, due: object) -> None:
    if found != due:
        where = tier.device if block == NO_BLOCK else f"{tier.device}, block {block}"
        raise LocalProtocolError(f"{where}: {what}: {found}, should be {due}")
