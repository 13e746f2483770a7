"""What the slots of an engine hold: of each, the last conversation that it evaluated.

A slot is given to the request that has most in common with what it holds, and what it holds is noted with
whoever wants to know, such as a gateway that routes by it.  While a slot works, nobody else can use what it
holds, so it counts as holding nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from penstock.kv.held import AskedPrefix, HeldPrefixes, shared

WORTH_KEEPING = 0.1
"""Of a prompt: a slot that has less in common with it is taken only when it is the one unused longest."""


class SlotPrefixes:
    """The slots of one engine; from any thread.

    Args:
        count: How many there are; no more requests may run at the same time.
    """

    def __init__(self, count: int) -> None:
        self._free = dict.fromkeys(range(count))  # the one unused longest first
        self._chains: list[Sequence[bytes]] = [()] * count
        self._told: dict[int, HeldPrefixes] = {}
        self._lock = threading.Lock()

    def take(self, chain: Sequence[bytes]) -> int:
        """Return the slot for a request, whose prompt has this chain; it keeps what both have in common."""
        with self._lock:
            slot = max(self._free, key=lambda free: self._common(free, chain))
            if self._common(slot, chain) <= WORTH_KEEPING * len(chain):
                slot = next(iter(self._free))
            del self._free[slot]
            self._chains[slot] = chain[: self._common(slot, chain)]
        self._tell_nothing(slot)
        return slot

    def evaluated(self, slot: int, chain: Sequence[bytes], asked: AskedPrefix | None, answer: str) -> None:
        """Note that a taken slot holds a prompt and what was answered.

        Args:
            chain: Of both.
            asked: The call's own prompt, where somebody wants to know.
        """
        self._chains[slot] = chain
        if asked is not None:
            self._told[slot] = asked.held
            asked.hold((id(self), slot), answer)

    def lost(self, slot: int) -> None:
        """Note that a taken slot holds nothing."""
        self._chains[slot] = ()

    def give_back(self, slot: int) -> None:
        """Let others have a slot."""
        with self._lock:
            self._free[slot] = None

    def close(self) -> None:
        """Nothing is held any more."""
        for slot in tuple(self._told):
            self._tell_nothing(slot)

    def _common(self, slot: int, chain: Sequence[bytes]) -> int:
        return shared(self._chains[slot], chain)

    def _tell_nothing(self, slot: int) -> None:
        held = self._told.pop(slot, None)
        if held is not None:
            held.drop((id(self), slot))
