"""The blocks that may be given up, the first of them first.

A heap of whole numbers, each of which holds a key and its block.  Keys grow while a block waits here; that is
put right when it comes to the front, so using a block costs nothing here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

_BLOCK_BITS = 32
_BLOCK = (1 << _BLOCK_BITS) - 1
_FEW = 64


class EvictionQueue:
    """Gives up blocks in the order of their keys.

    Args:
        num_blocks: How many blocks there are; ``queued`` says of each whether it waits here.
        key: The key of a block now, or None if it cannot be given up.
    """

    def __init__(self, num_blocks: int, key: Callable[[int], int | None]) -> None:
        self._key = key
        self._heap: list[int] = []
        self.queued = bytearray(num_blocks)
        self._forgotten = 0

    def add(self, block: int) -> None:
        """Note that a block can be given up now; that it can is known from ``key``."""
        key = self._key(block)
        if key is not None and not self.queued[block]:
            self.queued[block] = 1
            heapq.heappush(self._heap, key << _BLOCK_BITS | block)

    def first(self) -> int | None:
        """Return the block that is given up first."""
        heap = self._heap
        while heap:
            entry = heap[0]
            block = entry & _BLOCK
            key = self._key(block)
            if key is None:
                heapq.heappop(heap)
                self.queued[block] = 0
            elif key != entry >> _BLOCK_BITS:
                heapq.heapreplace(heap, key << _BLOCK_BITS | block)
            else:
                return block
        return None

    def pop(self) -> int | None:
        """Return the block that is given up first; it waits here no longer."""
        block = self.first()
        if block is not None:
            heapq.heappop(self._heap)
            self.queued[block] = 0
        return block

    def forget(self, block: int) -> None:
        """Note that a block has left the cache: its next key may be lower than the one that waits here."""
        if self.queued[block]:
            self.queued[block] = 0
            self._forgotten += 1
            if self._forgotten > _FEW and self._forgotten * 2 > len(self._heap):
                self._rebuild()

    def _rebuild(self) -> None:
        keys = {entry & _BLOCK: None for entry in self._heap if self.queued[entry & _BLOCK]}
        self._heap = []
        self._forgotten = 0
        for block in keys:
            self.queued[block] = 0
            self.add(block)

    def __len__(self) -> int:
        return len(self._heap)
