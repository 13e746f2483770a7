"""What a caller holds of the pool, and what the pool keeps behind it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import Field, NonNegativeInt

from penstock.errors import CallError, ErrorCode
from penstock.kv.chain import TOKEN_BYTES, chain_root, pack_tokens
from penstock.kv.policies import MAX_PRIORITY
from penstock.kv.sizes import check_whole, invalid
from penstock.kv.tiers import Tier
from penstock.protocol.kv import KVAllocateParams, KVHandle


class PoolHandle(KVHandle):
    """A handle of v0.1 that also knows how many of its first tokens were found in the cache.

    ``reused_tokens`` is for the caller in this process; it is not dumped, as v0.1 has no such field.
    """

    reused_tokens: NonNegativeInt = Field(default=0, exclude=True)


@dataclass(eq=False)
class Lease:
    """What stands behind a handle: its blocks, of which the first ``full`` are cached, and its tokens."""

    request_id: str
    tier: Tier
    num_tokens: int  # how many there is room for
    adapter: str
    priority: int
    root: bytes
    packed: bytearray
    reused_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    full: int = 0
    pins: int = 0
    handle_id: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def cached(self) -> list[int]:
        """The blocks that are in the cache."""
        return self.blocks[: self.full]

    def handle(self) -> PoolHandle:
        """Return the handle that is given to the caller."""
        return PoolHandle(
            handle_id=self.handle_id,
            request_id=self.request_id,
            num_tokens=self.num_tokens,
            device=self.tier.device,
            reused_tokens=self.reused_tokens,
        )


class Leases:
    """All leases, by the id of their handles."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def add(self, lease: Lease) -> None:
        """Keep a new lease."""
        self._leases[lease.handle_id] = lease

    def remove(self, lease: Lease) -> None:
        """Forget a lease."""
        del self._leases[lease.handle_id]

    def clear(self) -> None:
        """Forget all leases."""
        self._leases.clear()

    def find(self, handle: KVHandle) -> Lease:
        """Return the lease behind a handle.

        A handle's tokens and device may be those of an earlier moment; its ids must be right.

        Raises:
            CallError: ``not_found``: it was freed, or another pool gave it; ``permission_denied``: it is
                another request's.
        """
        lease = self._leases.get(handle.handle_id)
        if lease is None:
            raise CallError(
                f"this pool holds nothing for the handle {handle.handle_id!r}: it was freed already, or it "
                f"is of another pool; allocate anew",
                ErrorCode.NOT_FOUND,
            )
        if lease.request_id != handle.request_id:
            raise CallError(
                f"the handle {handle.handle_id!r} was given to another request than {handle.request_id!r}; "
                f"use the handle that `allocate` returned",
                ErrorCode.PERMISSION_DENIED,
            )
        return lease


def new_lease(
    params: KVAllocateParams,
    token_ids: Sequence[int],
    salt: str,
    adapter: str,
    priority: int,
    tier: Tier,
    block_size: int,
) -> Lease:
    """Return the lease that somebody asks for, as yet without blocks; see ``BlockPool.allocate``.

    Raises:
        CallError: ``invalid_argument``: what is asked for makes no sense.
    """
    check_whole("num_tokens", params.num_tokens, 1)
    check_whole("priority", priority, -MAX_PRIORITY, MAX_PRIORITY)
    if params.block_size != block_size:
        raise invalid(f"block_size is {params.block_size}, and this pool's blocks have {block_size} tokens")
    packed = pack_tokens(token_ids)
    if len(packed) > params.num_tokens * TOKEN_BYTES:
        raise invalid(
            f"there are {len(packed) // TOKEN_BYTES} token ids, and num_tokens is {params.num_tokens}; "
            f"it must be at least as many"
        )
    root = chain_root(salt, adapter, params.kv_dtype, params.layout, block_size)
    return Lease(params.request_id, tier, params.num_tokens, adapter, priority, root, bytearray(packed))
