"""What somebody else's cache holds, known from its events alone: what a router asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from penstock.errors import RemoteProtocolError
from penstock.kv.events import AllBlocksCleared, BlockHash, BlockStored, CacheEvent, NumberedEvent


class PrefixIndex:
    """The hashes of one pool's cached blocks, by medium, as its events tell them.

    Hashes are compared, never computed: any publisher's will do that sends the same ones to ask with.
    """

    def __init__(self) -> None:
        self._media: dict[str | None, set[BlockHash]] = {}
        self.next_seq = 0

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
            self._media.setdefault(event.medium, set()).update(event.block_hashes)
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
