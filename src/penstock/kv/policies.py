"""Which reusable block is given up first.

Only a block that no other cached block follows is ever given up, so a prefix is lost from its end; of those
blocks, the one with the least ``(rank, age)`` goes.  A rank never falls while its block stays cached.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping

from penstock.errors import CallError, ErrorCode

MAX_PRIORITY = 2**31 - 1


class Policy:
    """Least recently used: no ranks, and age counts from the last use."""

    name = "lru"
    ranked = False  # whether blocks have ranks at all
    ages_by_use = True  # or by when they came into the cache

    def first(self, priority: int, now_s: float) -> int:
        """Return the rank of a block that comes into the cache."""
        return 0

    def use(self, ranks: array[int], blocks: Iterable[int], priority: int, now_s: float) -> None:
        """Raise the ranks of blocks that are taken into use again."""

    def leave(self, ranks: array[int], blocks: Iterable[int], now_s: float) -> None:
        """Raise the ranks of blocks whose user has left."""

    def expired_below(self, now_s: float) -> int | None:
        """Return the rank below which a block is of no use any more, if there is one."""
        return None


class Fifo(Policy):
    """First in, first out."""

    name = "fifo"
    ages_by_use = False


class Lfu(Policy):
    """Least frequently used; of those used as often, the one used least recently."""

    name = "lfu"
    ranked = True

    def first(self, priority: int, now_s: float) -> int:
        """See ``Policy.first``."""
        return 1

    def use(self, ranks: array[int], blocks: Iterable[int], priority: int, now_s: float) -> None:
        """See ``Policy.use``."""
        for block in blocks:
            ranks[block] += 1


class Priority(Policy):
    """The lowest priority first, a block having the highest of all its users; then least recently used."""

    name = "priority"
    ranked = True

    def first(self, priority: int, now_s: float) -> int:
        """See ``Policy.first``."""
        return priority

    def use(self, ranks: array[int], blocks: Iterable[int], priority: int, now_s: float) -> None:
        """See ``Policy.use``."""
        for block in blocks:
            if ranks[block] < priority:
                ranks[block] = priority


class Ttl(Policy):
    """What was last used ``ttl_s`` seconds ago or earlier is given up, wanted or not; else the oldest."""

    name = "ttl"
    ranked = True

    def __init__(self, ttl_s: float = 300.0) -> None:
        if not 0.001 <= ttl_s < math.inf:
            raise CallError(
                f"ttl_s is {ttl_s}; it must be at least 0.001 seconds, and finite", ErrorCode.INVALID_ARGUMENT
            )
        self.ttl_s = ttl_s

    def first(self, priority: int, now_s: float) -> int:
        """See ``Policy.first``."""
        return _milliseconds(now_s + self.ttl_s)

    def use(self, ranks: array[int], blocks: Iterable[int], priority: int, now_s: float) -> None:
        """See ``Policy.use``."""
        self.leave(ranks, blocks, now_s)

    def leave(self, ranks: array[int], blocks: Iterable[int], now_s: float) -> None:
        """See ``Policy.leave``."""
        until = _milliseconds(now_s + self.ttl_s)
        for block in blocks:
            ranks[block] = until

    def expired_below(self, now_s: float) -> int:
        """See ``Policy.expired_below``."""
        return _milliseconds(now_s) + 1


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


POLICIES: Mapping[str, Callable[[], Policy]] = {
    kind.name: kind for kind in (Policy, Lfu, Fifo, Ttl, Priority)
}


def policy_of(policy: str | Policy) -> Policy:
    """Return a policy by its name, or as given.

    Raises:
        CallError: ``invalid_argument``: there is none of that name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise CallError(
            f"there is no policy {policy!r}; there are {', '.join(POLICIES)}", ErrorCode.INVALID_ARGUMENT
        )
    return POLICIES[policy]()
