"""What the cache holds, told as numbered events, so that others can know it too.

The events and their fields are those that vLLM publishes.  They are kept for a while, so that a reader that
lost some can ask again; one that comes too late is told so, and starts anew from ``BlockPool.snapshot``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeAlias

import msgspec

from penstock.errors import CallError, ErrorCode, ReplayTruncated
from penstock.kv.chain import unpack_tokens

BlockHash: TypeAlias = bytes | int  # a pool of penstock has bytes; vLLM may publish whole numbers


class BlockStored(msgspec.Struct, frozen=True, tag=True):
    """Full blocks came into the cache, one after another, the first of them after ``parent_block_hash``."""

    block_hashes: tuple[BlockHash, ...]
    parent_block_hash: BlockHash | None
    token_ids: tuple[int, ...]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None


class BlockRemoved(msgspec.Struct, frozen=True, tag=True):
    """Blocks left the cache."""

    block_hashes: tuple[BlockHash, ...]
    medium: str | None = None


class AllBlocksCleared(msgspec.Struct, frozen=True, tag=True):
    """Nothing is cached any more, on any medium."""


CacheEvent: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


class NumberedEvent(msgspec.Struct, frozen=True):
    """An event and its number: the first is 0, and none is left out.  ``timestamp`` is in Unix seconds."""

    seq: int
    timestamp: float
    event: CacheEvent


class _Stored(msgspec.Struct, frozen=True):
    """``BlockStored`` as it is kept: a token in 4 bytes, not in 36."""

    block_hashes: tuple[bytes, ...]
    parent: bytes | None
    packed: bytes
    block_size: int
    device: str
    adapter: str

    def event(self) -> BlockStored:
        tokens = tuple(unpack_tokens(self.packed))
        return BlockStored(
            self.block_hashes,
            self.parent,
            tokens,
            self.block_size,
            medium=self.device,
            lora_name=self.adapter or None,
        )


_Kept: TypeAlias = tuple[float, _Stored | BlockRemoved | AllBlocksCleared]


class EventLog:
    """The events of one pool, the newest of which are kept; any thread may read them.

    Args:
        max_events: How many events are kept.
        max_blocks: How many blocks the kept events may name in all; the newest event is always kept.

    Raises:
        ValueError: A bound is not positive.
    """

    def __init__(self, max_events: int = 10_000, max_blocks: int = 65_536) -> None:
        for name, bound in (("max_events", max_events), ("max_blocks", max_blocks)):
            if bound <= 0:
                raise ValueError(f"{name} is {bound}; it must be more than 0")
        self._max_events, self._max_blocks = max_events, max_blocks
        self._kept: deque[_Kept] = deque()
        self._blocks = 0
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.next_seq = 0

    @property
    def first_seq(self) -> int:
        """The number of the oldest event that is kept."""
        return self.next_seq - len(self._kept)

    def stored(
        self,
        block_hashes: Sequence[bytes],
        parent: bytes | None,
        packed: bytes,
        block_size: int,
        *,
        device: str,
        adapter: str,
        timestamp: float,
    ) -> None:
        """Note that blocks came into the cache; ``packed`` are their tokens."""
        kept = _Stored(tuple(block_hashes), parent, packed, block_size, device, adapter)
        self._append(timestamp, kept, len(block_hashes))

    def removed(self, block_hashes: Sequence[bytes], *, device: str, timestamp: float) -> None:
        """Note that blocks left the cache."""
        self._append(timestamp, BlockRemoved(tuple(block_hashes), device), len(block_hashes))

    def cleared(self, *, timestamp: float) -> None:
        """Note that nothing is cached any more."""
        self._append(timestamp, AllBlocksCleared(), 0)

    def _append(self, timestamp: float, kept: _Stored | BlockRemoved | AllBlocksCleared, blocks: int) -> None:
        with self._lock:
            self._kept.append((timestamp, kept))
            self._blocks += blocks
            self.next_seq += 1
            while len(self._kept) > self._max_events or (
                self._blocks > self._max_blocks and len(self._kept) > 1
            ):
                self._blocks -= _blocks_of(self._kept.popleft()[1])
        for listener in self._listeners:
            listener()

    def read(self, after: int = -1, limit: int = 1000) -> list[NumberedEvent]:
        """Return the events after the number ``after``, at most ``limit``.

        Raises:
            ReplayTruncated: Some of them are kept no longer, or ``after`` was never reached, as with a pool
                that was started anew.
            CallError: ``invalid_argument``: ``after`` is below -1, or ``limit`` is not positive.
        """
        if after < -1 or limit <= 0:
            raise CallError(
                f"cannot read {limit} events after {after}; `after` is -1 or a number, `limit` is positive",
                ErrorCode.INVALID_ARGUMENT,
            )
        with self._lock:
            first, following = self.first_seq, self.next_seq
            start = after + 1 - first
            kept = list(islice(self._kept, max(0, start), max(0, start) + limit))
        if not first - 1 <= after < following:
            raise ReplayTruncated(
                f"the events after {after} are not kept (there are {first} to {following - 1}); "
                f"start anew from a snapshot",
                first_seq=first,
            )
        return [_numbered(after + 1 + at, *entry) for at, entry in enumerate(kept)]

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each event, in the middle of the pool's work; it must not raise or wait.

        Returns:
            A function that ends this.
        """
        self._listeners = [*self._listeners, listener]

        def end() -> None:
            self._listeners = [known for known in self._listeners if known is not listener]

        return end


def _blocks_of(kept: _Stored | BlockRemoved | AllBlocksCleared) -> int:
    return 0 if isinstance(kept, AllBlocksCleared) else len(kept.block_hashes)


def _numbered(seq: int, timestamp: float, kept: _Stored | BlockRemoved | AllBlocksCleared) -> NumberedEvent:
    return NumberedEvent(seq, timestamp, kept.event() if isinstance(kept, _Stored) else kept)
