"""What the caches of one runner hold, as it says."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.errors import RemoteProtocolError
from penstock.kv.events import BlockRemoved, BlockStored
from penstock.kv.prefixes import PrefixIndex
from penstock.protocol.session import Cached

MAX_TOLD = 1_000_000
"""Blocks, and messages, that a runner may tell of from one heartbeat to the next: reading them takes the
gateway about a tenth of a second."""


class RunnerPrefixes:
    """Knows which prefixes of prompts a runner holds.  It is a hint: what is wrong costs time, and no call.

    Args:
        most: Blocks that are kept in mind; what a runner tells beyond that is passed over.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._index = PrefixIndex(most)
        self._current = False  # nothing was lost since it began anew
        self._told = 0
        self.blocks = 0
        """How many are known."""

    def beat(self) -> None:
        """A heartbeat has passed: it may tell as much again."""
        self._told = 0

    def hear(self, message: Cached) -> None:
        """Take in what a runner tells.  After a gap nothing is known, until it begins anew.

        Raises:
            RemoteProtocolError: It tells more than anybody can have to tell.
        """
        self._told += 1 + len(message.gone) + len(message.held)
        if self._told > MAX_TOLD:
            raise RemoteProtocolError(f"it told of more than {MAX_TOLD} blocks of its caches at once")
        if not self._most:
            return
        if message.anew or message.number != self._index.next_seq:
            self._current = message.anew
            self._index.restart(message.number, {})
        if self._current:
            events = BlockRemoved(tuple(message.gone)), BlockStored(tuple(message.held), None, (), 0)
            self._index.take(message.number, events)
        self.blocks = len(self._index)

    def longest(self, chain: Sequence[bytes]) -> int:
        """Return how many blocks at the start of a chain it holds."""
        return self._index.reach(chain, None)
