"""The blocks of one device: which are blank, held, and reusable.  Knows no requests and no tokens.

A block is *blank*, or *held* by one user or several, or *reusable*: cached, held by nobody, and found again
by its hash until it is given up.  The cached blocks form trees: whoever holds a block holds those before it,
and no block leaves the cache before those that follow it.

Everything is kept in arrays, by block number: a pool of a million blocks has no million objects for them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import repeat

from penstock.kv.policies import Policy
from penstock.kv.queue import EvictionQueue

NO_BLOCK = -1
_AGE_BITS = 48
_LEAST = -(2**31)  # a rank below all
_MANY = 4096


class Tier:
    """The blocks of one device; whoever calls has made sure that there are enough.

    Args:
        device: Free text such as ``cuda:0``.
        num_blocks: How many there are.
        policy: Which are given up first.
    """

    def __init__(self, device: str, num_blocks: int, policy: Policy) -> None:
        self.device = device
        self.num_blocks = num_blocks
        self.policy = policy
        self.blank = array("i", range(num_blocks - 1, -1, -1))  # taken from its end
        self.refs = array("i", repeat(0, num_blocks))
        self.children = array("i", repeat(0, num_blocks))
        self.parents = array("i", repeat(NO_BLOCK, num_blocks))
        self.ages = array("q", repeat(0, num_blocks))
        self.ranks = array("q", repeat(0, num_blocks if policy.ranked else 0))
        self.hashes: list[bytes | None] = [None] * num_blocks
        self.index: dict[bytes, int] = {}
        self._until_compact = _MANY
        self.reusable = 0
        self.queue = EvictionQueue(num_blocks, self.eviction_key)

    @property
    def available(self) -> int:
        """How many blocks can be taken, once the reusable ones are given up."""
        return len(self.blank) + self.reusable

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """Return the cached blocks of the longest prefix of a chain."""
        blocks: list[int] = []
        for block in map(self.index.get, hashes):
            if block is None:
                break
            blocks.append(block)
        return blocks

    def idle(self, blocks: Sequence[int]) -> int:
        """Return how many of these blocks nobody holds."""
        refs = self.refs
        return sum([not refs[block] for block in blocks])

    def hold(self, blocks: Sequence[int]) -> None:
        """Hold cached blocks, the first of a chain, once more."""
        refs, idle = self.refs, 0
        for block in blocks:
            users = refs[block]
            if not users:
                idle += 1
            refs[block] = users + 1
        self.reusable -= idle
        self.use(blocks)

    def use(self, blocks: Sequence[int]) -> None:
        """Note that cached blocks that are held are used."""
        if self.policy.counts_uses:
            ranks = self.ranks
            for block in blocks:
                ranks[block] += 1

    def take(self, count: int) -> list[int]:
        """Hold blank blocks."""
        if not count:
            return []
        taken = self.blank[: -count - 1 : -1].tolist()
        del self.blank[-count:]
        refs = self.refs
        for block in taken:
            refs[block] = 1
        return taken

    def store(self, blocks: Sequence[int], hashes: Sequence[bytes], parent: int, age: int) -> None:
        """Put held blocks into the cache, as those that follow ``parent``, a block or ``NO_BLOCK``."""
        if not blocks:
            return
        if parent != NO_BLOCK:
            self.children[parent] += 1
        self.index.update(zip(hashes, blocks, strict=True))
        self._until_compact -= len(blocks)
        if self._until_compact < 0:
            self._compact()
        known, parents, children = self.hashes, self.parents, self.children
        for block, name in zip(blocks, hashes, strict=True):
            known[block] = name
            parents[block] = parent
            children[block] = 1
            parent = block
        children[parent] = 0
        if not self.policy.ages_by_use:
            ages = self.ages
            for block in blocks:
                ages[block] = age
        if self.policy.ranked:
            ranks, first = self.ranks, 1 if self.policy.counts_uses else _LEAST
            for block in blocks:
                ranks[block] = first

    def _compact(self) -> None:
        """Make the index anew: what was given up leaves holes, and when a dictionary is full of them it makes
        itself up to three times as large as it needs to be.  A small one is quicker, too."""
        former, self.index = self.index, {}
        self.index.update(former)
        room = _room(len(former))
        self._until_compact = room if room * 8 > len(former) else _MANY + 2 * len(former)

    def release(self, blocks: Sequence[int], age: int, priority: int, now_s: float) -> None:
        """Let go of a chain's cached blocks; those that nobody holds any more become reusable.

        Only the last of them is told when: those before it learn it when it is given up, see ``_inherit``.
        """
        if not blocks:
            return
        refs, idle = self.refs, 0
        for block in blocks:
            users = refs[block] - 1
            refs[block] = users
            if not users:
                idle += 1
        self.reusable += idle
        last = blocks[-1]
        if self.policy.ages_by_use:
            self.ages[last] = age
        if self.policy.ranked:
            self.ranks[last] = self.policy.rank(self.ranks[last], priority, now_s)
        self.queue.add(last)

    def discard(self, blocks: Sequence[int]) -> list[bytes]:
        """Take a chain's blocks out of the cache, from its end, up to one that is held or has a follower.

        Returns:
            Their hashes.
        """
        gone: list[bytes] = []
        for block in reversed(blocks):
            if self.refs[block] or self.children[block]:
                self.queue.add(block)
                break
            gone.append(self._drop(block))
        return gone

    def give_back(self, blocks: Sequence[int]) -> None:
        """Make blank again what is held once and was never put into the cache."""
        for block in blocks:
            self.refs[block] = 0
        self.blank.extend(reversed(blocks))

    def evict(self, count: int) -> list[bytes]:
        """Give up reusable blocks, as many as there are up to ``count``; return their hashes."""
        gone: list[bytes] = []
        while len(gone) < count:
            block = self.queue.pop()
            if block is None:
                break
            self._evict_chain(block, count, gone)
        self.reusable -= len(gone)
        return gone

    def _evict_chain(self, block: int, count: int, gone: list[bytes]) -> None:
        """Give up a block, and those before it for as long as they are next: most chains go as a whole."""
        index, hashes, parents, children = self.index, self.hashes, self.parents, self.children
        refs, ages, ranks, queued = self.refs, self.ages, self.ranks, self.queue.queued
        age, ranked = ages[block], self.policy.ranked
        rank = ranks[block] if ranked else 0
        give, tell = self.blank.append, gone.append
        for left in range(count - len(gone), 0, -1):
            name = hashes[block]
            assert name is not None
            del index[name]
            hashes[block] = None
            tell(name)
            give(block)
            parent = parents[block]
            if parent == NO_BLOCK:
                return
            followers = children[parent] - 1
            children[parent] = followers
            kept = followers or left == 1 or refs[parent] or ages[parent] > age
            if kept or (ranked and ranks[parent] > rank):
                self._inherit(parent, age, rank)
                self.queue.add(parent)
                return
            if queued[parent]:
                self.queue.forget(parent)
            block = parent

    def expired(self, now_s: float) -> bool:
        """Whether a block's time is over."""
        below = self.policy.expired_below(now_s)
        if below is None:
            return False
        first = self.queue.first()
        return first is not None and self.ranks[first] < below

    def expire(self, now_s: float) -> list[bytes]:
        """Give up the blocks whose time is over; return their hashes."""
        gone: list[bytes] = []
        while self.expired(now_s):
            gone += self.evict(1)
        return gone

    def _drop(self, block: int) -> bytes:
        name = self.hashes[block]
        assert name is not None
        del self.index[name]
        self.hashes[block] = None
        self.queue.forget(block)
        self.reusable -= 1
        self.blank.append(block)
        parent = self.parents[block]
        if parent != NO_BLOCK:
            self.children[parent] -= 1
            self._inherit(parent, self.ages[block], self.ranks[block] if self.policy.ranked else 0)
        return name

    def _inherit(self, parent: int, age: int, rank: int) -> None:
        """Whoever has used a block has used those before it at the same time."""
        if self.policy.ages_by_use:
            self.ages[parent] = max(self.ages[parent], age)
        if self.policy.ranked:
            self.ranks[parent] = max(self.ranks[parent], rank)

    def eviction_key(self, block: int) -> int | None:
        """Return what orders a block among those that can be given up, or None if it cannot be."""
        if self.refs[block] or self.children[block] or self.hashes[block] is None:
            return None
        if self.policy.ranked:
            return self.ranks[block] << _AGE_BITS | self.ages[block]
        return self.ages[block]


def _room(entries: int) -> int:
    """Return how many more entries a dictionary takes that was made of so many: they fill two thirds of its
    slots, whose number is a power of two."""
    slots = 1 << ((3 * entries + 1) // 2 - 1).bit_length()
    return slots * 2 // 3 - entries
