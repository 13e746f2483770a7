"""What somebody else's cache holds, known from its events alone: what a router asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from penstock.errors import RemoteProtocolError
from penstock.kv.events import AllBlocksCleared, BlockHash, BlockStored, CacheEvent, NumberedEvent


class PrefixIndex:
    """The hashes of one pool's cached blocks, by medium, as its events tell them.

    Hashes are compared, never computed: any publisher's will do that sends the same ones to ask with.

    Args:
        max_blocks: How many are kept in mind on each medium; None sets no bound.  What is stored beyond it is
            passed over.
    """

    def __init__(self, max_blocks: int | None = None) -> None:
        self._max = max_blocks
        self._media: dict[str | None, set[BlockHash]] = {}
        self.next_seq = 0

    def __len__(self) -> int:
        """How many blocks are known, on all media."""
        return sum(map(len, self._media.values()))

    def apply(self, numbered: NumberedEvent) -> None:
        """Take in the next event; see ``take``."""
        self.take(numbered.seq, (numbered.event,))

    def take(self, seq: int, events: Sequence[CacheEvent]) -> None:
        """Take in the next events, which have one number together, as messages of ZeroMQ have.

        Raises:
            RemoteProtocolError: They are not the next; nothing was changed.  Ask for those from ``next_seq``
                on, or ``restart`` from a snapshot.
        """
        if seq != self.next_seq:
            raise RemoteProtocolError(
                f"event {seq} came where {self.next_seq} was due; ask for a replay from there"
            )
        self.next_seq += 1
        for event in events:
            self._apply(event)

    def _apply(self, event: CacheEvent) -> None:
        if isinstance(event, AllBlocksCleared):
            self._media.clear()
        elif isinstance(event, BlockStored):
            known = self._media.setdefault(event.medium, set())
            room = None if self._max is None else max(0, self._max - len(known))
            known.update(islice(event.block_hashes, room))
        else:
            self._media.get(event.medium, set()).difference_update(event.block_hashes)

    def restart(self, next_seq: int, media: Mapping[str | None, Iterable[BlockHash]]) -> None:
        """Forget everything, and go on from a snapshot: what is cached, and the number of the next event."""
        self._media = {medium: set(hashes) for medium, hashes in media.items()}
        self.next_seq = next_seq

    def hashes(self, medium: str | None) -> frozenset[BlockHash]:
        """Return the hashes of all blocks that are cached on a medium."""
        return frozenset(self._media.get(medium, ()))

    def longest(self, chain: Sequence[BlockHash], medium: str | None) -> int:
        """Return how many blocks at the start of a chain are cached on a medium."""
        known = self._media.get(medium, set())
        return next((at for at, name in enumerate(chain) if name not in known), len(chain))

    def reach(self, chain: Sequence[BlockHash], medium: str | None) -> int:
        """Return the same where no block is cached without those before it, in a few looks."""
        known = self._media.get(medium, set())
        if not chain or chain[0] not in known:
            return 0
        return bisect_left(chain, True, key=lambda name: name not in known)
