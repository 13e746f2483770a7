"""What the caches of a process hold, as chains of the texts of prompts: what a runner tells its gateways."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from penstock.kv.events import AllBlocksCleared, EventLog, NumberedEvent
from penstock.kv.prompts import BLOCK_BYTES, read_prompt

MAX_BLOCKS = 16_384
"""2 MiB of text.  What was noted first is forgotten first."""


@dataclass(frozen=True)
class HeldBlocks:
    """Blocks that are held, and blocks that are no longer; ``next_seq`` is the number of the next event."""

    next_seq: int
    held: list[bytes]
    gone: list[bytes] = field(default_factory=list)


class HeldPrefixes:
    """What is held in which place, and each change of that as an event; from any thread.

    A place, such as a slot of an engine, holds one chain at a time.  A block that several places hold is
    told once.  The events carry names of blocks and no text.

    Args:
        max_blocks: The blocks of all places together.
        clock: Unix seconds.
    """

    def __init__(self, max_blocks: int = MAX_BLOCKS, clock: Callable[[], float] = time.time) -> None:
        self._max = max_blocks
        self._clock = clock
        self._log = EventLog()
        self._places: dict[Hashable, tuple[bytes, ...]] = {}
        self._size = 0
        self._holders: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def hold(self, place: Hashable, chain: Sequence[bytes]) -> None:
        """Note that a place holds a chain now, and nothing else."""
        with self._lock:
            former = self._places.pop(place, ())
            common = shared(former, chain)
            self._let_go(former[common:])
            self._take(chain, common)
            if chain:
                self._places[place] = tuple(chain)
            self._size += len(chain) - len(former)
            while self._size > self._max:
                self._forget(next(iter(self._places)))

    def drop(self, place: Hashable) -> None:
        """Note that a place holds nothing any more."""
        self.hold(place, ())

    def read(self, after: int) -> list[NumberedEvent]:
        """Return the events after the number ``after``.

        Raises:
            ReplayTruncated: Some of them are kept no longer; start anew from ``snapshot``.
        """
        with self._lock:
            return self._log.read(after, limit=1_000_000)

    def snapshot(self) -> HeldBlocks:
        """Return all that is held; no block before those it follows."""
        with self._lock:
            held = (name for chain in self._places.values() for name in chain)
            return HeldBlocks(self._log.next_seq, list(dict.fromkeys(held)))

    def changes(self, after: int) -> HeldBlocks:
        """Return what has come and gone since the event of the number ``after``, each block once.

        Raises:
            ReplayTruncated: As for ``read``.
        """
        events = self.read(after)
        named = dict.fromkeys(name for each in events for name in _named(each))
        with self._lock:
            held = [name for name in named if name in self._holders]
            gone = [name for name in named if name not in self._holders]
            return HeldBlocks(after + 1 + len(events), held, gone)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each event, in whichever thread; it must not raise, wait, or ask anything.

        Returns:
            A function that ends this.
        """
        with self._lock:
            return self._log.listen(listener)

    def _forget(self, place: Hashable) -> None:
        chain = self._places.pop(place)
        self._size -= len(chain)
        self._let_go(chain)

    def _let_go(self, names: Sequence[bytes]) -> None:
        self._holders.subtract(names)
        gone = [name for name in names if not self._holders[name]]
        for name in gone:
            del self._holders[name]
        if gone:
            self._log.removed(gone, device="", timestamp=self._clock())

    def _take(self, chain: Sequence[bytes], common: int) -> None:
        # Whoever holds a block holds those before it: new ones are the last of a chain.
        new = [name for name in chain[common:] if name not in self._holders]
        self._holders.update(chain[common:])
        if new:
            before = len(chain) - len(new)
            parent = chain[before - 1] if before else None
            self._log.stored(new, parent, b"", BLOCK_BYTES, device="", adapter="", timestamp=self._clock())


@dataclass(frozen=True)
class AskedPrefix:
    """A call's prompt, for the engine that answers it.

    Attributes:
        held: Where what is held is noted.
        input: Of the call, JSON.
    """

    held: HeldPrefixes
    input: bytes

    def hold(self, place: Hashable, answer: str) -> None:
        """Note that a place holds the call's prompt and its answer."""
        prompt = read_prompt(self.input)
        self.held.hold(place, () if prompt is None else prompt.chain(answer))


def _named(numbered: NumberedEvent) -> list[bytes]:
    event = numbered.event
    if isinstance(event, AllBlocksCleared):
        return []
    return [name for name in event.block_hashes if isinstance(name, bytes)]


def shared(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return how many blocks two chains have in common; they part once."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
