"""The KV cache of one engine: what its calls hold of it while they run, and who waits for room.

A call gets room for its whole prompt and its whole answer before it starts.  What a prompt takes may be
known only as a bound until the engine has looked at it, so room is only counted at first.  Blocks are
allocated when the prompt is known: those that are cached can be shared then, and no bound evicts any.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import msgspec

from penstock.calls.admission import LOCK, Admission, Place, Shortage, whole_seconds
from penstock.calls.drain import DrainRate
from penstock.errors import CallError, ErrorCode, LocalProtocolError
from penstock.kv.events import EventLog
from penstock.kv.handles import PoolHandle
from penstock.kv.hooks import Hooks
from penstock.kv.hot import HotPrefix
from penstock.kv.pool import BlockPool
from penstock.kv.stats import PoolStats
from penstock.protocol.events import UNBOUNDED
from penstock.protocol.kv import KVAllocateParams, KVDType, KVLayout

BLOCK_TOKENS = 16
QUEUE = 1024
"""How many generations may wait for room that commands of an author's ask for while they run."""
_NO_BOUND = 1_000_000_000

_log = logging.getLogger("penstock.kv")


class CacheState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an engine's cache now.

    Attributes:
        waiting: Calls that wait for room, and could have a permit.
        counted_blocks: Kept free for calls that have allocated none yet.
        drain_tokens_per_s: What calls give back, as measured; None until one has.
        engine_prompt_tokens: Tokens of prompts, as the engine has counted them.
        engine_cached_tokens: Those of them that the engine says it had cached.
    """

    name: str
    stats: PoolStats
    hottest: Sequence[HotPrefix]
    next_seq: int
    waiting: int
    counted_blocks: int
    drain_tokens_per_s: float | None
    engine_prompt_tokens: int
    engine_cached_tokens: int


class KVNeed:
    """Room in a cache for one generation: wanted, then had, then given back."""

    __slots__ = ("_cache", "computed", "counted", "handle", "num_tokens", "request_id")

    def __init__(self, cache: EngineCache, request_id: str, num_tokens: int) -> None:
        self._cache = cache
        self.request_id = request_id
        self.num_tokens = num_tokens
        self.counted = 0
        """Blocks that are kept free for it, as it has none yet."""
        self.handle: PoolHandle | None = None
        self.computed = False
        """Whether the engine has read the prompt, so that its tokens stay cached when this is over."""

    def take(self, place: Place) -> bool:
        """See ``Need.take``."""
        return self._cache.take(self, place)

    def drop(self) -> None:
        """See ``Need.drop``."""
        self._cache.drop(self)

    def shortage(self) -> Shortage | None:
        """See ``Need.shortage``."""
        return self._cache.shortage(self)

    def allocate(self, num_tokens: int, prompt_ids: Sequence[int] = ()) -> None:
        """Allocate blocks, now that the prompt is known; those of its beginning are shared with whoever has
        the same.

        Args:
            num_tokens: What prompt and answer will take at most.
            prompt_ids: The prompt's tokens; none where the engine does not tell them, or keeps none of them.

        Raises:
            CallError: ``resource_exhausted``: it is more than was asked for, and not to be had;
                ``failed_precondition``: a hook forbade it.
        """
        self._cache.allocate(self, num_tokens, prompt_ids)

    def fit(self, num_tokens: int) -> None:
        """Give back what is allocated beyond ``num_tokens``."""
        self._cache.change(self, lambda pool, handle: pool.trim(handle, num_tokens))

    def follow(self, answer_ids: Sequence[int]) -> None:
        """Say what was answered: who goes on from there finds it cached."""
        self._cache.change(self, lambda pool, handle: pool.extend(handle, answer_ids))


class EngineCache:
    """The KV cache of one engine.

    Args:
        name: The engine's.
        num_tokens: How many tokens all its calls together may hold, in whole blocks.
        call_tokens: How many a single call may take; None is all of them.
        monotonic: Seconds that only go forward.

    Raises:
        CallError: ``invalid_argument``: the cache would not hold a block, or more than 2**31 - 1.
    """

    def __init__(
        self,
        name: str,
        num_tokens: int,
        *,
        call_tokens: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._pool = BlockPool(num_tokens // BLOCK_TOKENS, BLOCK_TOKENS, clock=monotonic)
        self._call_tokens = call_tokens
        self._denied: dict[KVNeed, Place] = {}
        self._held: set[KVNeed] = set()
        self._counted = 0
        self._reserved: dict[str, KVNeed] = {}
        self._drain = DrainRate(monotonic)
        self._direct = Admission(_NO_BOUND, QUEUE, name, monotonic)
        self._closed = False
        self._on_close: list[Callable[[], None]] = []
        self._prompt_tokens = self._cached_tokens = 0

    @property
    def hooks(self) -> Hooks:
        """Who is told what happens, and may forbid some of it; called in whatever thread it happens in."""
        return self._pool.hooks

    @property
    def events(self) -> EventLog:
        """What is cached, told as numbered events."""
        return self._pool.events

    @property
    def num_tokens(self) -> int:
        """How many tokens it holds at most."""
        return self._pool.num_blocks * BLOCK_TOKENS

    @contextmanager
    def locked(self) -> Iterator[BlockPool]:
        """Return a context in which the pool may be used, by any thread; nothing may wait in there."""
        with LOCK:
            try:
                yield self._pool
            finally:
                self._retry()

    def state(self) -> CacheState:
        """Return how it is."""
        with LOCK:
            return CacheState(
                name=self.name,
                stats=self._pool.stats(),
                hottest=self._pool.hottest(),
                next_seq=self._pool.events.next_seq,
                waiting=len(self._denied),
                counted_blocks=self._counted,
                drain_tokens_per_s=self._drain.per_second(),
                engine_prompt_tokens=self._prompt_tokens,
                engine_cached_tokens=self._cached_tokens,
            )

    # -- what a call needs -----------------------------------------------------------------------------

    def need(self, request_id: str, prompt_tokens: int, max_tokens: int, budget: int | None) -> KVNeed:
        """Return what a generation needs, as far as that is known before its prompt is.

        Args:
            request_id: Of its call.
            prompt_tokens: What the prompt takes at most.
            max_tokens: What the answer takes at most.
            budget: ``kv_budget_tokens`` of the request: what both may take together.
        """
        bounds = self._bounds(max_tokens, budget)
        # Who surely needs more than there is will be refused; that a bound is too high hurts nobody.
        least = min([1 + max_tokens, *bounds])
        most = min([prompt_tokens + max_tokens, self.num_tokens, *bounds])
        return KVNeed(self, request_id, max(least, most))

    def fitting(self, prompt_tokens: int, max_tokens: int, budget: int | None) -> int:
        """Return what a generation takes at most, now that its prompt is known."""
        bounds = self._bounds(max_tokens, budget)
        return max(prompt_tokens, min([prompt_tokens + max_tokens, *bounds]))

    def _bounds(self, max_tokens: int, budget: int | None) -> list[int]:
        there = self.num_tokens if max_tokens == UNBOUNDED else None
        return [bound for bound in (budget, self._call_tokens, there) if bound is not None]

    @asynccontextmanager
    async def hold(self, wanted: KVNeed) -> AsyncIterator[KVNeed]:
        """Return a context in which a generation has its room: that which its call got, or else its own.

        Raises:
            CallError: ``resource_exhausted``: there will be none, or too many wait; or a hook forbade it.
        """
        with LOCK:
            reserved = self._reserved.pop(wanted.request_id, None)
        if reserved is not None:
            try:
                yield reserved
            finally:
                with LOCK:
                    reserved.drop()
            return
        place = self._direct.enter(wanted)
        try:
            await place.admitted()
            yield wanted
        finally:
            place.leave()

    def reserve(self, need: KVNeed) -> KVNeed:
        """Have ``hold`` use what ``need`` has got, for the generation of the same request id."""
        with LOCK:
            self._reserved[need.request_id] = need
        return need

    def told(self, prompt_tokens: int, cached_tokens: int) -> None:
        """Count what the engine says of a generation: how long its prompt was, and how much was cached."""
        with LOCK:
            self._prompt_tokens += prompt_tokens
            self._cached_tokens += cached_tokens

    def close(self) -> None:
        """Say that the engine is closed; when its last call is over, the books are looked at."""
        with LOCK:
            self._closed = True
            self._look_if_over()
            ended, self._on_close = self._on_close, []
        for listener in ended:
            listener()

    def on_close(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when the engine is closed, at once if it is; in whichever thread, and it must not
        raise or wait.

        Returns:
            A function that ends this.
        """
        with LOCK:
            if not self._closed:
                self._on_close.append(listener)
                return lambda: self._on_close.remove(listener) if listener in self._on_close else None
        listener()
        return lambda: None

    # -- for needs -------------------------------------------------------------------------------------

    def take(self, need: KVNeed, place: Place) -> bool:
        """See ``Need.take``: first come, first served, whatever admission they came through."""
        if need.num_tokens > self.num_tokens:
            self._forget(need)
            raise self._more_than_there_is(need)
        blocks = -(-need.num_tokens // BLOCK_TOKENS)
        fits = blocks <= self._room
        if self._denied and next(iter(self._denied)) is not need:
            fits = False
        elif not fits and not self._held:
            self._forget(need)
            raise self._nobody_drains(need)
        if not fits:
            self._denied.setdefault(need, place)
            return False
        self._denied.pop(need, None)
        need.counted = blocks
        self._counted += blocks
        self._held.add(need)
        self._drain.taken()
        return True

    def allocate(self, need: KVNeed, num_tokens: int, prompt_ids: Sequence[int]) -> None:
        """See ``KVNeed.allocate``."""
        with LOCK:
            if need not in self._held:
                return
            self._uncount(need)
            need.num_tokens = num_tokens
            try:
                need.handle = self._pool.allocate(_params(need), prompt_ids)
            except CallError as error:
                if error.code is ErrorCode.RESOURCE_EXHAUSTED and error.retryable:
                    error.retry_after_s = whole_seconds(self._wait_s(need))
                raise
            finally:
                self._retry()

    def drop(self, need: KVNeed) -> None:
        """See ``Need.drop``."""
        self._forget(need)
        if need in self._held:
            self._held.discard(need)
            self._uncount(need)
            self._drain.given_back(need.num_tokens)
            handle, need.handle = need.handle, None
            with suppress(CallError):  # somebody has freed it by force
                if handle is not None:
                    self._pool.free(handle, force=True, keep_in_cache=need.computed)
            self._look_if_over()
        self._retry()

    def shortage(self, need: KVNeed) -> Shortage | None:
        """See ``Need.shortage``."""
        room = self._room * BLOCK_TOKENS
        if not self._denied and need.num_tokens <= room:
            return None
        return Shortage(f"{room} of {self.num_tokens} tokens of KV cache left", self._wait_s(need))

    def change(self, need: KVNeed, change: Callable[[BlockPool, PoolHandle], PoolHandle]) -> None:
        """Change what a need holds, if it holds any; what cannot be done to it is not done."""
        with LOCK:
            if need.handle is not None:
                with suppress(CallError):
                    need.handle = change(self._pool, need.handle)
                    self._retry()

    @property
    def _room(self) -> int:
        return self._pool.available - self._counted

    def _uncount(self, need: KVNeed) -> None:
        self._counted -= need.counted
        need.counted = 0

    def _forget(self, need: KVNeed) -> None:
        self._denied.pop(need, None)
        if self._reserved.get(need.request_id) is need:
            del self._reserved[need.request_id]

    def _retry(self) -> None:
        while self._denied:
            need, place = next(iter(self._denied.items()))
            place.retry()
            if need in self._denied:
                return

    def _more_than_there_is(self, need: KVNeed) -> CallError:
        return CallError(
            f"prompt and answer may take {need.num_tokens} tokens, and the KV cache of {self.name} holds "
            f"{self.num_tokens}; lower max_tokens or kv_budget_tokens, or shorten the prompt",
            ErrorCode.RESOURCE_EXHAUSTED,
            retryable=False,
        )

    def _nobody_drains(self, need: KVNeed) -> CallError:
        return CallError(
            f"{need.num_tokens} tokens of the KV cache of {self.name} are needed, and "
            f"{self._room * BLOCK_TOKENS} are left; no call holds the rest, so waiting for one is no use",
            ErrorCode.RESOURCE_EXHAUSTED,
            retry_after_s=whole_seconds(self._wait_s(need)),
        )

    def _wait_s(self, need: KVNeed) -> float:
        ahead = sum(other.num_tokens for other in self._denied if other is not need)
        missing = ahead + need.num_tokens - self._room * BLOCK_TOKENS
        rate = self._drain.per_second()
        return 1.0 if rate is None else max(0, missing) / rate

    def _look_if_over(self) -> None:
        if not self._closed or self._held:
            return
        handles = self._pool.stats().handles
        if handles:
            _log.warning("%s is closed, and %d handles of its KV cache were never freed", self.name, handles)
        try:
            self._pool.check()
        except LocalProtocolError as error:
            _log.error("the books of the KV cache of %s are wrong: %s", self.name, error)


def _params(need: KVNeed) -> KVAllocateParams:
    return KVAllocateParams(
        request_id=need.request_id,
        num_tokens=need.num_tokens,
        kv_dtype=KVDType.FP16,
        layout=KVLayout.BSHD,
        block_size=BLOCK_TOKENS,
    )
