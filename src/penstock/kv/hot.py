"""Which prefixes many requests begin with."""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest

import msgspec

_KEPT = 256


class HotPrefix(msgspec.Struct, frozen=True):
    """A prefix: the hash of its last block, its length in tokens, and how many requests were found to begin
    with it, and with nothing longer that was cached."""

    block_hash: bytes
    num_tokens: int
    uses: int


class HotPrefixes:
    """Counts the prefixes that were found.

    It knows a bounded number of them: when there are too many, the half that was used least is forgotten.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, int]] = {}  # length and uses

    def found(self, block_hash: bytes, num_tokens: int) -> None:
        """Count one more use of a prefix."""
        known = self._known
        _, uses = known.get(block_hash, (0, 0))
        known[block_hash] = (num_tokens, uses + 1)
        if len(known) > _KEPT:
            self._forget()

    def first(self, limit: int, cached: Callable[[bytes], bool]) -> list[HotPrefix]:
        """Return the most used of those that are ``cached``, the first of them first."""
        there = [HotPrefix(name, *about) for name, about in self._known.items() if cached(name)]
        return nlargest(limit, there, key=lambda prefix: (prefix.uses, prefix.num_tokens))

    def _forget(self) -> None:
        kept = nlargest(_KEPT // 2, self._known.items(), key=lambda entry: entry[1][1])
        self._known = dict(kept)
