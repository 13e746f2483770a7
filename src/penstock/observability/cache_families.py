"""The metrics of engines' KV caches, read when somebody asks; their one own label is the engine's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from penstock.calls.engine_cache import CacheState, EngineCache
from penstock.observability.text import Family, labels

_BLOCKS = Family("penstock_kv_blocks", "gauge", "Blocks of KV cache, by what they are.")
_EVICTED = Family("penstock_kv_evicted_blocks", "counter", "Blocks that were given up, and why.")
_GAUGES: tuple[tuple[Family, Callable[[CacheState], float]], ...] = (
    (
        Family("penstock_kv_block_tokens", "gauge", "Tokens in a block."),
        lambda state: state.stats.block_size,
    ),
    (
        Family("penstock_kv_handles", "gauge", "Handles that hold blocks: one for each generation."),
        lambda state: state.stats.handles,
    ),
    (
        Family("penstock_kv_waiting", "gauge", "Calls that have to wait for room."),
        lambda state: state.waiting,
    ),
    (
        Family("penstock_kv_drain_tokens", "gauge", "Tokens that calls give back per second, as measured."),
        lambda state: state.drain_tokens_per_s or 0.0,
    ),
)
_COUNTERS: tuple[tuple[Family, Callable[[CacheState], int]], ...] = (
    (
        Family("penstock_kv_queried_tokens", "counter", "Tokens of prompts that were looked for."),
        lambda state: state.stats.queried_tokens,
    ),
    (
        Family("penstock_kv_reused_tokens", "counter", "Those of them that were found."),
        lambda state: state.stats.reused_tokens,
    ),
    (
        Family("penstock_kv_engine_prompt_tokens", "counter", "Tokens of prompts, as engines count them."),
        lambda state: state.engine_prompt_tokens,
    ),
    (
        Family("penstock_kv_engine_cached_tokens", "counter", "Those of them that engines had cached."),
        lambda state: state.engine_cached_tokens,
    ),
)


def cache_families(caches: Iterable[EngineCache]) -> Iterator[tuple[Family, list[str]]]:
    """Yield what is to be shown of caches; nothing at all where there are none."""
    known = [(labels(engine=cache.name), cache.state()) for cache in caches]
    if not known:
        return
    yield (
        _BLOCKS,
        [_BLOCKS.sample(f'{whose},state="{name}"', n) for whose, s in known for name, n in _blocks(s)],
    )
    for family, read in (*_GAUGES, *_COUNTERS):
        yield family, [family.sample(whose, read(state)) for whose, state in known]
    evicted = [(whose, why, n) for whose, state in known for why, n in state.stats.evicted_blocks.items()]
    yield _EVICTED, [_EVICTED.sample(f'{whose},reason="{why}"', n) for whose, why, n in evicted]


def _blocks(state: CacheState) -> Iterator[tuple[str, int]]:
    main = state.stats.tiers[0]
    yield from (("held", main.held), ("reusable", main.reusable), ("blank", main.blank))
    yield "kept", state.counted_blocks
