"""Whatever is asked of a pool, it does what a naive one does, and its books are right after each step.

Its events are read by a reader that knows nothing else, and that knows the same in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kv.model import BLOCK, Model, Path, Refused, Request
from penstock.errors import CallError
from penstock.kv import (
    BlockPool,
    BlockStored,
    KVHookEvent,
    KVHookPoint,
    KVVeto,
    Policy,
    PoolHandle,
    PrefixIndex,
    Ttl,
    chain_hashes,
    chain_root,
    pack_tokens,
)
from penstock.protocol.kv import KVAllocateParams, KVDType, KVLayout, KVMigrateParams

TTL_MS = 5000
POLICIES = ("lru", "lfu", "fifo", "ttl", "priority")
SCOPES = ("", "tenant")
DEVICES = ("gpu", "cpu", "disk")

# Few sequences that share beginnings, so that prefixes meet often; few blocks, so that they are soon gone.
SEQUENCES = ((0,) * 9, (0, 0, 0, 0, 1, 1, 1, 1, 1), (0, 0, 1, 1, 0, 0, 1, 1, 0), (1,) * 9)
tokens = st.builds(lambda which, length: which[:length], st.sampled_from(SEQUENCES), st.integers(2, 9))
rarely = st.integers(0, 19).map(lambda luck: luck == 7)
few = st.integers(0, 3)
scopes = st.sampled_from(("", "", "", "tenant"))
priorities = st.integers(-1, 2)
picks = st.integers(0, 1000)


def params(num_tokens: int, request_id: str = "r") -> KVAllocateParams:
    return KVAllocateParams(
        request_id=request_id,
        num_tokens=num_tokens,
        kv_dtype=KVDType.FP16,
        layout=KVLayout.BSHD,
        block_size=BLOCK,
    )


@cache
def hash_of(path: Path) -> bytes:
    root = chain_root(path.scope, "", KVDType.FP16, KVLayout.BSHD, BLOCK)
    return chain_hashes(root, pack_tokens(path.tokens), BLOCK)[-1]


class PoolAndModel(RuleBasedStateMachine):
    policy = ""

    @initialize(sizes=st.tuples(st.integers(4, 12), st.integers(2, 6), st.integers(1, 4)))
    def start(self, sizes: tuple[int, int, int]) -> None:
        named = dict(zip(DEVICES, sizes, strict=True))
        policy: str | Policy = Ttl(TTL_MS / 1000) if self.policy == "ttl" else self.policy
        tiers = {device: size for device, size in named.items() if device != "gpu"}
        self.model = Model(named, self.policy, TTL_MS)
        self.pool = BlockPool(
            named["gpu"], BLOCK, "gpu", tiers=tiers, policy=policy, clock=lambda: self.model.now_ms / 1000
        )
        self.handles: dict[int, PoolHandle] = {}
        self.given = 0
        self.reader = PrefixIndex()
        self.told: set[tuple[str, bytes]] = set()
        self.seqs: list[int] = []
        self.reentered: list[str] = []
        for point in KVHookPoint:
            self.pool.hooks.on(point, lambda event: self.seqs.append(event.seq))
            self.pool.hooks.on(point, self.reenter)
        self.pool.hooks.on(KVHookPoint.BEFORE_EVICT, self.may_evict)
        self.pool.hooks.on(KVHookPoint.STORED, self.hear)
        self.pool.hooks.on(KVHookPoint.REMOVED, self.hear)
        self.pool.hooks.on(KVHookPoint.CLEARED, lambda _: self.told.clear())

    def may_evict(self, event: KVHookEvent) -> KVVeto | None:
        return KVVeto("not now") if self.model.veto_evict else None

    def reenter(self, event: KVHookEvent) -> None:
        with pytest.raises(CallError) as refused:
            self.pool.clear(force=True)
        self.reentered.append(refused.value.code.value)

    def hear(self, event: KVHookEvent) -> None:
        told = {(event.device, name) for name in event.block_hashes}
        self.told = self.told | told if event.point is KVHookPoint.STORED else self.told - told

    def same(self, real: Callable[[], object], naive: Callable[[], object]) -> None:
        """Do something to both: they return the same, or refuse for the same reason."""
        code = due = None
        try:
            due = naive()
        except Refused as refused:
            code = refused.code
        if code is None:
            assert real() == due
            return
        with pytest.raises(CallError) as raised:
            real()
        assert raised.value.code.value == code

    def pick(self, pick: int) -> int:
        return sorted(self.handles)[pick % len(self.handles)]

    some = precondition(lambda self: self.handles)

    @rule(known=tokens, more=few, scope=scopes, priority=priorities)
    def allocate_and_free(self, known: tuple[int, ...], more: int, scope: str, priority: int) -> None:
        before = self.given
        self.allocate(known, more, scope, priority)
        if before + 1 in self.handles:
            self.free(-1, True, True)

    @rule(known=tokens, more=few, scope=scopes, priority=priorities)
    def allocate(self, known: tuple[int, ...], more: int, scope: str, priority: int) -> None:
        room = len(known) + more
        number = self.given = self.given + 1

        def real() -> int:
            handle = self.pool.allocate(params(room, f"r{number}"), known, salt=scope, priority=priority)
            self.handles[number] = handle
            return handle.reused_tokens

        self.same(real, lambda: self.model.allocate(number, Request("gpu", scope, known, room, priority)))

    @some
    @rule(pick=picks, known=tokens, more=few)
    def extend(self, pick: int, known: tuple[int, ...], more: int) -> None:
        number = self.pick(pick)

        def real() -> None:
            self.handles[number] = self.pool.extend(self.handles[number], known, more)

        self.same(real, lambda: self.model.extend(number, known, more))

    @rule(room=st.integers(1, 9), scope=scopes)
    def allocate_blindly(self, room: int, scope: str) -> None:
        self.allocate((), room, scope, 0)

    @some
    @rule(pick=picks, room=st.integers(0, 9))
    def trim(self, pick: int, room: int) -> None:
        number = self.pick(pick)

        def real() -> None:
            self.handles[number] = self.pool.trim(self.handles[number], room)

        self.same(real, lambda: self.model.trim(number, room))

    @some
    @rule(pick=picks, force=st.booleans(), keep=st.booleans())
    def free(self, pick: int, force: bool, keep: bool) -> None:
        number = self.pick(pick)
        handle = self.handles[number]
        self.same(
            lambda: self.pool.free(handle, force, keep),
            lambda: self.model.free(number, force=force, keep=keep),
        )
        if number not in self.model.requests:
            del self.handles[number]
            with pytest.raises(CallError, match="freed already"):
                self.pool.free(handle)

    @some
    @rule(pick=picks)
    def pin(self, pick: int) -> None:
        number = self.pick(pick)
        self.model.requests[number].pins += 1
        assert self.pool.pin(self.handles[number]) == self.model.requests[number].pins

    @some
    @rule(pick=picks)
    def unpin(self, pick: int) -> None:
        number = self.pick(pick)
        request = self.model.requests[number]
        if not request.pins:
            with pytest.raises(CallError, match="not pinned"):
                self.pool.unpin(self.handles[number])
            return
        request.pins -= 1
        assert self.pool.unpin(self.handles[number]) == request.pins

    @some
    @rule(pick=picks)
    def touch(self, pick: int) -> None:
        number = self.pick(pick)
        self.pool.touch(self.handles[number])
        self.model.touch(number)

    @some
    @rule(pick=picks, device=st.sampled_from(DEVICES))
    def migrate(self, pick: int, device: str) -> None:
        number = self.pick(pick)

        def real() -> None:
            asked = KVMigrateParams(kv_handle=self.handles[number], target_device=device)
            self.handles[number] = self.pool.migrate(asked)

        self.same(real, lambda: self.model.migrate(number, device))

    @rule(known=tokens, scope=scopes, priority=priorities)
    def prefetch(self, known: tuple[int, ...], scope: str, priority: int) -> None:
        request = Request("gpu", scope, known, len(known), priority)
        self.same(
            lambda: self.pool.prefetch(params(len(known)), known, salt=scope, priority=priority),
            lambda: self.model.prefetch(request),
        )

    @rule(count=few, device=st.sampled_from(DEVICES))
    def evict(self, count: int, device: str) -> None:
        self.same(lambda: self.pool.evict(count, device=device), lambda: self.model.evict(count, device))

    @rule(force=st.booleans(), now=rarely)
    def clear(self, force: bool, now: bool) -> None:
        if not now:
            return
        self.same(lambda: self.pool.clear(force), lambda: self.model.clear(force=force))
        if not self.model.requests:
            self.handles.clear()

    @rule(pause_ms=st.sampled_from((1, 2500, TTL_MS)))
    def time_passes(self, pause_ms: int) -> None:
        self.model.now_ms += pause_ms

    @rule(forbids=rarely)
    def the_hook_forbids_or_allows_to_evict(self, forbids: bool) -> None:
        self.model.veto_evict = forbids

    # -- what always holds -----------------------------------------------------------------------------

    @invariant()
    def the_books_are_right(self) -> None:
        if hasattr(self, "pool"):
            self.pool.check()

    @invariant()
    def both_hold_the_same(self) -> None:
        if hasattr(self, "pool"):
            stats = self.pool.stats()
            assert stats.handles == len(self.model.requests)
            assert stats.pinned == sum(bool(request.pins) for request in self.model.requests.values())
            for tier in stats.tiers:
                assert tier.held == self.model.held(tier.device)
                assert tier.blank == self.model.blank(tier.device)
            for number, request in self.model.requests.items():
                handle = self.handles[number]
                assert (handle.num_tokens, handle.device) == (request.room, request.device)
                assert len(self.pool.blocks(handle)) == request.blocks

    @invariant()
    def both_have_cached_the_same(self) -> None:
        if hasattr(self, "pool"):
            due = {device: set(map(hash_of, cached)) for device, cached in self.model.cached.items()}
            assert {device: set(names) for device, names in self.pool.snapshot()[1].items()} == due
            assert self.told == {(device, name) for device, names in due.items() for name in names}

    @invariant()
    def a_reader_of_the_events_knows_the_same(self) -> None:
        if hasattr(self, "pool"):
            for numbered in self.pool.events.read(self.reader.next_seq - 1):
                self.reader.apply(numbered)
                if isinstance(numbered.event, BlockStored):
                    self.names_follow_from_parent_and_tokens(numbered.event)
            next_seq, media = self.pool.snapshot()
            assert self.reader.next_seq == next_seq
            assert {device: self.reader.hashes(device) for device in media} == {
                device: frozenset(names) for device, names in media.items()
            }

    def names_follow_from_parent_and_tokens(self, event: BlockStored) -> None:
        roots = [chain_root(scope, "", KVDType.FP16, KVLayout.BSHD, BLOCK) for scope in SCOPES]
        parents = roots if event.parent_block_hash is None else [event.parent_block_hash]
        packed = pack_tokens(event.token_ids)
        assert list(event.block_hashes) in [chain_hashes(parent, packed, BLOCK) for parent in parents]

    @invariant()
    def hooks_are_numbered_and_cannot_reenter(self) -> None:
        if hasattr(self, "pool"):
            assert self.seqs == list(range(self.pool.hooks.seq))
            assert self.reentered == ["failed_precondition"] * len(self.seqs)


def machine(name: str) -> Any:
    """Return the test of one policy."""
    kind: Any = type(f"PoolAndModel_{name}", (PoolAndModel,), {"policy": name})
    case = kind.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    return case


TestLru, TestLfu, TestFifo, TestTtl, TestPriority = map(machine, POLICIES)
