"""What the slots of an engine hold: of each, the last conversation that it evaluated.

A slot is given to the request that has most in common with what it holds, and what it holds is noted with
whoever wants to know, such as a gateway that routes by it.  While a slot works, nobody else can use what it
holds, so it counts as holding nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeAlias

from penstock.kv.held import AskedPrefix, HeldPrefixes

Tokens: TypeAlias = Sequence[int] | Sequence[bytes]
"""A text as a slot holds it: by its token ids or, where they cannot be had, by its chain."""

WORTH_KEEPING = 0.1
"""Of a prompt: a slot that has less in common with it is taken only when it is the one unused longest."""


class SlotPrefixes:
    """The slots of one engine; from any thread.

    Args:
        count: How many there are; no more requests may run at the same time.
    """

    def __init__(self, count: int) -> None:
        self._free = dict.fromkeys(range(count))  # the one unused longest first
        self._held: list[Tokens] = [()] * count
        self._told: dict[int, HeldPrefixes] = {}
        self._lock = threading.Lock()

    def take(self, prompt: Tokens) -> int:
        """Return the slot for a request with this prompt; it keeps what both have in common."""
        with self._lock:
            slot = max(self._free, key=lambda free: self._common(free, prompt))
            if self._common(slot, prompt) <= WORTH_KEEPING * len(prompt):
                slot = next(iter(self._free))
            del self._free[slot]
            self._held[slot] = prompt[: self._common(slot, prompt)]
        self._tell_nothing(slot)
        return slot

    def evaluated(self, slot: int, text: Tokens, asked: AskedPrefix | None, answer: str) -> None:
        """Note that a taken slot holds a prompt and what was answered.

        Args:
            text: Of both.
            asked: The call's own prompt, where somebody wants to know.
        """
        self._held[slot] = text
        if asked is not None:
            self._told[slot] = asked.held
            asked.hold((id(self), slot), answer)

    def lost(self, slot: int) -> None:
        """Note that a taken slot holds nothing."""
        self._held[slot] = ()

    def give_back(self, slot: int) -> None:
        """Let others have a slot."""
        with self._lock:
            self._free[slot] = None

    def close(self) -> None:
        """Nothing is held any more."""
        for slot in tuple(self._told):
            self._tell_nothing(slot)

    def _common(self, slot: int, prompt: Tokens) -> int:
        """Return how much a slot has in common with a prompt, from the beginning."""
        held = self._held[slot]
        low, high = 0, min(len(held), len(prompt))
        while low < high:  # by halves: slices are compared at once
            middle = (low + high + 1) // 2
            if held[low:middle] == prompt[low:middle]:
                low = middle
            else:
                high = middle - 1
        return low

    def _tell_nothing(self, slot: int) -> None:
        held = self._told.pop(slot, None)
        if held is not None:
            held.drop((id(self), slot))
