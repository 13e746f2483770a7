"""Which reusable block is given up first.

Only a block that no other cached block follows is ever given up, so a prefix is lost from its end; of those
blocks, the one with the least ``(rank, age)`` goes.  Neither falls while its block stays cached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from penstock.kv.sizes import invalid

MAX_PRIORITY = 2**31 - 1


class Policy:
    """Least recently used: no ranks, and age counts from the last use."""

    name = "lru"
    ranked = False  # whether blocks have ranks at all
    counts_uses = False  # whether the rank is the number of uses
    ages_by_use = True  # whether age counts from the last use, or from when a block came into the cache

    def rank(self, rank: int, priority: int, now_s: float) -> int:
        """Return the rank of a block that had ``rank``, and whose user has left just now."""
        return rank

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
    counts_uses = True


class Priority(Policy):
    """The lowest priority first, a block having the highest of all its users; then least recently used."""

    name = "priority"
    ranked = True

    def rank(self, rank: int, priority: int, now_s: float) -> int:
        """See ``Policy.rank``."""
        return max(rank, priority)


class Ttl(Policy):
    """What was last used ``ttl_s`` seconds ago or earlier is given up, wanted or not; else the oldest."""

    name = "ttl"
    ranked = True

    def __init__(self, ttl_s: float = 300.0) -> None:
        if not 0.001 <= ttl_s < math.inf:
            raise invalid(f"ttl_s is {ttl_s}; it must be at least 0.001 seconds, and finite")
        self.ttl_s = ttl_s

    def rank(self, rank: int, priority: int, now_s: float) -> int:
        """See ``Policy.rank``."""
        return _milliseconds(now_s + self.ttl_s)

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
        raise invalid(f"there is no policy {policy!r}; there are {', '.join(POLICIES)}")
    return POLICIES[policy]()
