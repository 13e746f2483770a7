"""Routes about the KV caches of the engines in this process, for admins: numbers, and events as they come.

Events tell the tokens of prompts, and hashes let one find out whether a prompt is cached; so both are not for
everybody who may call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs

import msgspec
from typing_extensions import Self

from penstock.calls.caches import Caches
from penstock.calls.engine_cache import CacheState, EngineCache
from penstock.errors import CallError, ErrorCode
from penstock.kv.feed import ndjson_lines
from penstock.kv.stats import TierStats
from penstock.protocol.dispatch import Batch
from penstock.server.exchange import Exchange
from penstock.server.pump import Pump
from penstock.server.requests import stream_form
from penstock.server.tasks import asked_after

_AT_ONCE = 100  # events that are written together


class KvPrefix(msgspec.Struct, frozen=True):
    """A prefix as `GET /v2/kv` shows it: hash of its last block, length, how many requests began so."""

    block_hash: str
    num_tokens: int
    uses: int


class KvEngine(msgspec.Struct, frozen=True, kw_only=True):
    """The cache of one engine, as `GET /v2/kv` shows it.

    Attributes:
        devices: Blocks of each, each held, reusable or blank; what is cached may be held.
        handles: Generations that hold some, and what else does.
        kept_blocks: Kept free for calls that hold none yet.
        waiting: Calls that wait for room.
        queried_tokens: Tokens of prompts that were looked for in the pool.
        reused_tokens: Those that were found there.
        engine_prompt_tokens: Tokens of prompts, by the engine's own count.
        engine_cached_tokens: Those of them that it had cached, by its own count.
        drain_tokens_per_s: What calls give back, as measured; null before one has.
        next_seq: Number of the next event.
    """

    engine: str
    block_size: int
    policy: str
    devices: tuple[TierStats, ...]
    handles: int
    pinned: int
    kept_blocks: int
    waiting: int
    allocations: int
    refusals: int
    queried_tokens: int
    reused_tokens: int
    prefix_hit_rate: float
    engine_prompt_tokens: int
    engine_cached_tokens: int
    engine_hit_rate: float
    stored_blocks: int
    migrated_blocks: int
    prefetched_blocks: int
    evicted_blocks: Mapping[str, int]
    drain_tokens_per_s: float | None
    hottest: tuple[KvPrefix, ...]
    next_seq: int


class KvCaches(msgspec.Struct, frozen=True):
    """What `GET /v2/kv` answers."""

    engines: tuple[KvEngine, ...]
    timestamp: float


class KvRoutes:
    """`/v2/kv` and below.

    Args:
        caches: What is shown.
        pump: Writes events.
    """

    def __init__(self, caches: Caches, pump: Pump) -> None:
        self._caches = caches
        self._pump = pump

    async def show(self, exchange: Exchange) -> None:
        """`GET /v2/kv`: how the caches are."""
        _admins_only(exchange)
        shown = tuple(_shown(cache.state()) for cache in self._caches)
        await exchange.reply(200, msgspec.json.encode(KvCaches(shown, round(exchange.wall(), 3))))

    async def events(self, exchange: Exchange) -> None:
        """`GET /v2/kv/events?engine=NAME&after=N`: the events behind number N, then live ones."""
        _admins_only(exchange)
        query = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        cache = self._caches.find(query["engine"][-1] if "engine" in query else None)
        form, after = stream_form(exchange), asked_after(exchange)
        cache.events.read(after, 1)  # refused before anything is written
        if exchange.scope["method"] == "HEAD":
            await exchange.start(200, form.headers)
            await exchange.outlet.write(b"", more=False)
        else:
            await self._pump.stream(exchange, _Events(cache), form, after)


class _Events:
    """The events of a cache, to be read as the frames of a call are."""

    task_id = None

    def __init__(self, cache: EngineCache) -> None:
        self._cache = cache

    def reader(self, after: int = -1) -> _EventReader:
        return _EventReader(self._cache, after)


class _EventReader:
    """Follows the events of a cache until it is closed, or its engine is."""

    def __init__(self, cache: EngineCache, after: int) -> None:
        self._cache = cache
        self._after = after
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._over = self._nudged = False
        self._listening = self._listen()

    async def __aenter__(self) -> Self:
        self._listening.__enter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._listening.__exit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while True:
            self._news.clear()
            if events := self._cache.events.read(self._after, _AT_ONCE):
                self._after = events[-1].seq
                return Batch(events[0].seq, ndjson_lines(events).splitlines(), None)
            if self._over:
                raise StopAsyncIteration
            if self._nudged:
                self._nudged = False
                return Batch(self._after + 1, [], None)
            await self._news.wait()

    def close(self) -> None:
        """End the iteration."""
        self._over = True
        self._wake()

    def nudge(self) -> None:
        """See ``FrameReader.nudge``."""
        self._nudged = True
        self._news.set()

    @contextmanager
    def _listen(self) -> Iterator[None]:
        unlisten = self._cache.events.listen(self._wake)
        forget = self._cache.on_close(self.close)
        try:
            yield
        finally:
            forget()
            unlisten()

    def _wake(self) -> None:
        """Look again; from any thread."""
        with suppress(RuntimeError):  # the loop is closed, and nobody reads any more
            self._loop.call_soon_threadsafe(self._news.set)


def _admins_only(exchange: Exchange) -> None:
    if not exchange.caller.admin:
        raise CallError("KV caches are for keys of the scope admin", ErrorCode.PERMISSION_DENIED)


def _shown(state: CacheState) -> KvEngine:
    stats = state.stats
    prompt, cached = state.engine_prompt_tokens, state.engine_cached_tokens
    return KvEngine(
        engine=state.name,
        block_size=stats.block_size,
        policy=stats.policy,
        devices=stats.tiers,
        handles=stats.handles,
        pinned=stats.pinned,
        kept_blocks=state.counted_blocks,
        waiting=state.waiting,
        allocations=stats.allocations,
        refusals=stats.refusals,
        queried_tokens=stats.queried_tokens,
        reused_tokens=stats.reused_tokens,
        prefix_hit_rate=stats.prefix_hit_rate,
        engine_prompt_tokens=prompt,
        engine_cached_tokens=cached,
        engine_hit_rate=cached / prompt if prompt else 0.0,
        stored_blocks=stats.stored_blocks,
        migrated_blocks=stats.migrated_blocks,
        prefetched_blocks=stats.prefetched_blocks,
        evicted_blocks=stats.evicted_blocks,
        drain_tokens_per_s=state.drain_tokens_per_s,
        hottest=tuple(KvPrefix(hot.block_hash.hex(), hot.num_tokens, hot.uses) for hot in state.hottest),
        next_seq=state.next_seq,
    )
