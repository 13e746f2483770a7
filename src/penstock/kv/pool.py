"""The KV cache of one engine as a managed resource.

The pool keeps the books; it moves no tensors.  It belongs to one thread, has no event loop and waits for
nothing: an operation is done when it returns, or has changed nothing when it raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.errors import CallError, ErrorCode
from penstock.kv.books import Books
from penstock.kv.cache import Cache
from penstock.kv.chain import TOKEN_BYTES, chain_hashes, pack_tokens
from penstock.kv.events import EventLog
from penstock.kv.gate import Gate
from penstock.kv.handles import Lease, PoolHandle, new_lease
from penstock.kv.hooks import KVHookPoint
from penstock.kv.policies import Policy, policy_of
from penstock.kv.sizes import MAX_BLOCKS, check_whole, invalid
from penstock.kv.tiers import Tier
from penstock.protocol.kv import KVAllocateParams, KVEvictReason, KVHandle, KVMigrateParams


class BlockPool(Books):
    """Blocks of cache that requests allocate, share by prefix, keep, and give up.

    Args:
        num_blocks: How many there are on ``device``.
        block_size: Tokens in a block.
        device: Where requests run; free text such as ``cuda:0``.
        tiers: Further devices, and how many blocks each has: where handles can be migrated to.
        policy: Which reusable block is given up first: ``lru``, ``lfu``, ``fifo``, ``ttl``, ``priority``, or
            a ``Policy``.
        events: The log that changes are told in; by default one of its own.
        clock: Seconds that only go forward.

    Raises:
        CallError: ``invalid_argument``: a size is not positive or beyond 2**31 - 1, a device stands twice, or
            there is no such policy.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        device: str = "cpu",
        *,
        tiers: Mapping[str, int] | None = None,
        policy: str | Policy = "lru",
        events: EventLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if device in (tiers or {}):
            raise invalid(f"the device {device!r} stands among `tiers` as well; give it once")
        sizes = {device: num_blocks, **(tiers or {})}
        for name, size in (("block_size", block_size), *sizes.items()):
            check_whole(f"the size of {name}", size, 1, MAX_BLOCKS)
        self.policy = policy_of(policy)
        made = {name: Tier(name, size, self.policy) for name, size in sizes.items()}
        super().__init__(Cache(made, block_size, clock, events or EventLog()), block_size)
        self._gate = Gate(self._cache.hooks, clock)
        self.hooks = self._cache.hooks

    # -- what requests do ------------------------------------------------------------------------------

    def allocate(
        self,
        params: KVAllocateParams,
        token_ids: Sequence[int] | None = None,
        *,
        salt: str = "",
        adapter: str = "",
        priority: int = 0,
    ) -> PoolHandle:
        """Hold blocks for ``params.num_tokens``, of which those found in the cache are shared.

        The full blocks of ``token_ids`` are in the cache from now on.

        Args:
            params: What is needed; its ``block_size`` must be the pool's.
            token_ids: The first tokens, as far as they are known.
            salt: Only those with the same salt share blocks: a tenant's name, for example.
            adapter: The adapter (LoRA) in use; it parts caches as a salt does.
            priority: For the policy of that name.

        Raises:
            CallError: ``invalid_argument``; ``resource_exhausted``: so many blocks are not to be had;
                ``failed_precondition``: a hook forbade it.  Nothing was changed.
        """
        lease = new_lease(params, token_ids or (), salt, adapter, priority, self._main, self.block_size)
        needed = self._blocks_for(lease.num_tokens)
        about = self._about(lease, num_blocks=needed)
        try:
            return self._gate.run("allocate", about, lambda: self._allocate(lease, needed, about))
        except CallError:
            self._cache.counts.refusals += 1
            raise

    def _allocate(self, lease: Lease, needed: int, about: dict[str, Any]) -> PoolHandle:
        cache, tier = self._cache, lease.tier
        cache.expire(tier)
        hashes = chain_hashes(lease.root, bytes(lease.packed), self.block_size)
        shared = tier.match(hashes)
        lease.blocks = cache.admit(tier, shared, needed - len(shared))
        lease.full = len(shared)
        cache.store(tier, lease, hashes[len(shared) :], len(shared))
        self._leases.add(lease)
        cache.counts.allocations += 1
        cache.looked_up(lease, len(shared), hashes)
        about["handle"] = handle = lease.handle()
        about["reused_tokens"] = lease.reused_tokens
        return handle

    def extend(self, handle: KVHandle, token_ids: Sequence[int] = (), num_tokens: int = 0) -> PoolHandle:
        """Take in tokens that follow those known, and make room for ``num_tokens`` more than there was.

        Room also grows as far as the tokens need it.  A block that gets full, and that the cache has already,
        is given back for the cached one: look at ``blocks`` again.  The first tokens of a handle that knew
        none count as asked for, and ``reused_tokens`` says how many of them were found.

        Raises:
            CallError: As ``allocate``; ``not_found`` or ``permission_denied``: the handle is not good.
        """
        check_whole("num_tokens", num_tokens, 0)
        packed = pack_tokens(token_ids)
        lease = self._leases.find(handle)
        known = (len(lease.packed) + len(packed)) // TOKEN_BYTES
        room = max(lease.num_tokens + num_tokens, known)
        needed = self._blocks_for(room) - len(lease.blocks)
        about = self._about(lease, handle=handle, num_tokens=room, num_blocks=needed)
        if needed:
            return self._gate.run("allocate", about, lambda: self._extend(lease, packed, room, needed))
        return self._gate.alone(lambda: self._extend(lease, packed, room, 0))

    def _extend(self, lease: Lease, packed: bytes, room: int, needed: int) -> PoolHandle:
        cache, tier = self._cache, lease.tier
        cache.expire(tier)
        lease.blocks += cache.admit(tier, (), needed)
        lease.num_tokens = room
        first, fresh = lease.full, not lease.packed
        lease.packed += packed
        parent = tier.hashes[lease.blocks[first - 1]] if first else lease.root
        assert parent is not None
        rest = bytes(lease.packed[first * self.block_size * TOKEN_BYTES :])
        hashes = chain_hashes(parent, rest, self.block_size)
        shared = tier.match(hashes)
        if shared:
            tier.hold(shared)
            tier.give_back(lease.blocks[first : first + len(shared)])
            lease.blocks[first : first + len(shared)] = shared
            lease.full += len(shared)
        cache.store(tier, lease, hashes[len(shared) :], lease.full)
        if fresh:
            cache.looked_up(lease, len(shared), hashes)
        return lease.handle()

    def trim(self, handle: KVHandle, num_tokens: int) -> PoolHandle:
        """Give back the room that a handle has beyond ``num_tokens``; hooks are not told.

        Raises:
            CallError: ``invalid_argument``: more of its tokens are known; ``not_found`` or
                ``permission_denied``: the handle is not good.
        """
        lease = self._leases.find(handle)
        check_whole("num_tokens", num_tokens, max(1, len(lease.packed) // TOKEN_BYTES))
        return self._gate.alone(lambda: self._trim(lease, num_tokens))

    def _trim(self, lease: Lease, num_tokens: int) -> PoolHandle:
        if num_tokens < lease.num_tokens:
            kept = self._blocks_for(num_tokens)
            lease.tier.give_back(lease.blocks[kept:])
            del lease.blocks[kept:]
            lease.num_tokens = num_tokens
        return lease.handle()

    def pin(self, handle: KVHandle) -> int:
        """Keep a handle from being freed without ``force``; return how often it is pinned now.

        Raises:
            CallError: ``not_found`` or ``permission_denied``: the handle is not good.
        """
        return self._gate.alone(lambda: self._pin(handle, 1))

    def unpin(self, handle: KVHandle) -> int:
        """Take one pin away; return how many are left.

        Raises:
            CallError: As ``pin``; ``failed_precondition``: it is not pinned.
        """
        return self._gate.alone(lambda: self._pin(handle, -1))

    def _pin(self, handle: KVHandle, change: int) -> int:
        lease = self._leases.find(handle)
        if lease.pins + change < 0:
            raise CallError(
                f"the handle {handle.handle_id!r} is not pinned; call `pin` first",
                ErrorCode.FAILED_PRECONDITION,
            )
        lease.pins += change
        point = KVHookPoint.PINNED if change > 0 else KVHookPoint.UNPINNED
        self.hooks.fire(point, **self._about(lease, handle=handle, pins=lease.pins))
        return lease.pins

    def touch(self, handle: KVHandle) -> None:
        """Count one more use of a handle's cached blocks.

        Raises:
            CallError: ``not_found`` or ``permission_denied``: the handle is not good.
        """
        self._gate.alone(lambda: self._touch(handle))

    def _touch(self, handle: KVHandle) -> None:
        lease = self._leases.find(handle)
        lease.tier.use(lease.cached)
        self.hooks.fire(KVHookPoint.TOUCHED, **self._about(lease, handle=handle))

    def free(self, handle: KVHandle, force: bool = False, keep_in_cache: bool = True) -> None:
        """Give a handle's blocks back.

        Args:
            handle: It is good no longer.
            force: Free it even if it is pinned.
            keep_in_cache: Let its cached blocks be found until they are evicted; otherwise those go at once
                that nobody else holds and that no other cached block follows.

        Raises:
            CallError: ``not_found`` or ``permission_denied``: the handle is not good, perhaps freed already;
                ``failed_precondition``: it is pinned.
        """
        lease = self._leases.find(handle)
        if lease.pins and not force:
            raise CallError(
                f"the handle {handle.handle_id!r} is pinned {lease.pins} times; unpin it, or free by force",
                ErrorCode.FAILED_PRECONDITION,
            )
        about = self._about(lease, handle=handle)
        self._gate.run("free", about, lambda: self._free(lease, keep_in_cache))

    def _free(self, lease: Lease, keep: bool) -> None:
        self._leases.remove(lease)
        self._cache.release(lease, keep=keep)

    # -- what whoever manages the cache does ------------------------------------------------------------

    def evict(
        self, n: int, reason: KVEvictReason = KVEvictReason.EXPLICIT_FREE, device: str | None = None
    ) -> int:
        """Give up reusable blocks, as many as there are up to ``n``; return how many.

        Raises:
            CallError: ``invalid_argument``: ``n`` is negative, or there is no such device;
                ``failed_precondition``: a hook forbade it.
        """
        check_whole("the number of blocks to evict", n, 0)
        tier, why = self._tier(device), KVEvictReason(reason)
        return self._gate.alone(lambda: self._cache.evict(tier, n, why))

    def migrate(self, params: KVMigrateParams) -> PoolHandle:
        """Move what a handle holds to another device; what others hold too, or follow, stays there as well.

        Raises:
            CallError: ``invalid_argument``: there is no such device; ``resource_exhausted``: it is full;
                ``failed_precondition``: a hook forbade it; ``not_found`` or ``permission_denied``: the
                handle is not good.  Nothing was changed.
        """
        lease, target = self._leases.find(params.kv_handle), self._tier(params.target_device)
        if target is lease.tier:
            return lease.handle()
        about = self._about(lease, handle=params.kv_handle, target_device=target.device)
        return self._gate.run("migrate", about, lambda: self._migrate(lease, target))

    def _migrate(self, lease: Lease, target: Tier) -> PoolHandle:
        cache, source = self._cache, lease.tier
        cache.expire(target)
        hashes = [name for block in lease.cached if (name := source.hashes[block]) is not None]
        shared = target.match(hashes)
        blocks = cache.admit(target, shared, len(lease.blocks) - len(shared))
        cache.release(lease, keep=False)
        lease.tier, lease.blocks, lease.full = target, blocks, len(shared)
        cache.store(target, lease, hashes[len(shared) :], len(shared))
        cache.counts.migrated_blocks += len(blocks)
        return lease.handle()

    def prefetch(
        self,
        params: KVAllocateParams,
        token_ids: Sequence[int],
        *,
        salt: str = "",
        adapter: str = "",
        priority: int = 0,
    ) -> int:
        """Copy a prefix that other tiers have to the device where requests run, as reusable blocks.

        As much is copied as there is room for, others' reusable blocks included.  ``params`` and the rest
        are those of the request to come.

        Returns:
            How many of its tokens ``allocate`` would find now.

        Raises:
            CallError: As ``allocate``.
        """
        lease = new_lease(params, token_ids, salt, adapter, priority, self._main, self.block_size)
        about = self._about(lease)
        return self._gate.run("prefetch", about, lambda: self._prefetch(lease, about))

    def _prefetch(self, lease: Lease, about: dict[str, Any]) -> int:
        cache, tier = self._cache, self._main
        for each in cache.tiers.values():
            cache.expire(each)
        hashes = chain_hashes(lease.root, bytes(lease.packed), self.block_size)
        here = tier.match(hashes)
        others = [each.index for each in cache.tiers.values() if each is not tier]
        known = len(here)
        while known < len(hashes) and any(hashes[known] in index for index in others):
            known += 1
        count = min(known - len(here), tier.available - tier.idle(here))
        lease.blocks = cache.admit(tier, here, count)
        lease.full = len(here)
        cache.store(tier, lease, hashes[len(here) : len(here) + count], len(here))
        cache.release(lease, keep=True)
        cache.counts.prefetched_blocks += count
        about["num_blocks"] = count
        return (len(here) + count) * self.block_size

    def clear(self, force: bool = False) -> int:
        """Empty the cache of all tiers; return how many blocks were in it.

        Args:
            force: Free all handles first, pinned ones too; they are good no longer.

        Raises:
            CallError: ``failed_precondition``: there are handles that are not freed.
        """
        if self._leases and not force:
            raise CallError(
                f"{len(self._leases)} handles are not freed; free them, or clear the pool by force",
                ErrorCode.FAILED_PRECONDITION,
            )
        return self._gate.alone(self._clear)

    def _clear(self) -> int:
        for lease in self._leases:
            self._cache.release(lease, keep=True)
        self._leases.clear()
        return self._cache.clear()

    # -- how ---------------------------------------------------------------------------------------------

    def _about(self, lease: Lease, **more: Any) -> dict[str, Any]:
        return {
            "device": lease.tier.device,
            "request_id": lease.request_id,
            "num_tokens": lease.num_tokens,
            "num_blocks": len(lease.blocks),
            **more,
        }

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _tier(self, device: str | None) -> Tier:
        if device is None:
            return self._main
        tier = self._cache.tiers.get(device)
        if tier is None:
            known = ", ".join(self._cache.tiers)
            raise invalid(f"there is no device {device!r} in this pool; there are {known}")
        return tier
