"""What the KV pool costs: against a naive pool, by the size of the pool, and in memory.

    python benchmarks/kv_pool.py

A round allocates and frees one request of 4,096 tokens in blocks of 16, whose first half all requests share
and whose other half is new each time; the pool is full, so that each round evicts as much as it stores.  Both
pools hash the same bytes the same way, and every answer is checked.  The naive pool is a dictionary of block
objects, with an ordered dictionary for those that are reusable.  Times are those of the CPU.

With `--vllm WHEEL` vLLM's own path is measured beside them: see `peers/vllm_blocks.py`.  It publishes no
events then; penstock's pool always keeps them.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
import tracemalloc
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from pathlib import Path

from penstock.kv.events import EventLog
from penstock.kv.pool import BlockPool
from penstock.protocol.kv import KVAllocateParams, KVDType, KVLayout

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from vllm_blocks import vllm_round

TOKENS, BLOCK = 4096, 16
BLOCKS = TOKENS // BLOCK
SHARED = list(range(TOKENS // 2))
PARAMS = KVAllocateParams(
    request_id="r", num_tokens=TOKENS, kv_dtype=KVDType.FP16, layout=KVLayout.BSHD, block_size=BLOCK
)

Round = Callable[[list[int]], int]  # allocates and frees; tells how many tokens were reused


@dataclass(eq=False)
class NaiveBlock:
    name: bytes | None = None
    users: int = 0


class NaivePool:
    """One object per block, and each looked at by itself."""

    def __init__(self, num_blocks: int) -> None:
        self.cached: dict[bytes, NaiveBlock] = {}
        self.free: OrderedDict[int, NaiveBlock] = OrderedDict()
        for _ in range(num_blocks):
            block = NaiveBlock()
            self.free[id(block)] = block

    def allocate(self, tokens: list[int]) -> tuple[list[NaiveBlock], int]:
        blocks, parent, reused = [], b"", 0
        for start in range(0, len(tokens), BLOCK):
            packed = array("I", tokens[start : start + BLOCK]).tobytes()
            parent = blake2b(parent + packed, digest_size=16).digest()
            block = self.cached.get(parent)
            if block is None:
                block = self.take(parent)
            else:
                reused += BLOCK
                if not block.users:
                    del self.free[id(block)]
            block.users += 1
            blocks.append(block)
        return blocks, reused

    def take(self, name: bytes) -> NaiveBlock:
        _, block = self.free.popitem(last=False)
        if block.name is not None:
            del self.cached[block.name]
        block.name = name
        self.cached[name] = block
        return block

    def give_back(self, blocks: list[NaiveBlock]) -> None:
        for block in reversed(blocks):
            block.users -= 1
            if not block.users:
                self.free[id(block)] = block


def naive_round(num_blocks: int) -> Round:
    pool = NaivePool(num_blocks)

    def run(tokens: list[int]) -> int:
        blocks, reused = pool.allocate(tokens)
        pool.give_back(blocks)
        return reused

    return run


def pool_round(num_blocks: int, policy: str) -> Round:
    pool = BlockPool(num_blocks, BLOCK, policy=policy)

    def run(tokens: list[int]) -> int:
        handle = pool.allocate(PARAMS, tokens)
        pool.free(handle)
        return handle.reused_tokens

    return run


def fill(run: Round, num_blocks: int, fresh: count[int]) -> None:
    """Go on until the pool is full, and has begun to evict."""
    for _ in range(num_blocks // (BLOCKS // 2) + 3):
        run(request(fresh))


def request(fresh: count[int]) -> list[int]:
    start = next(fresh) * 7919
    return SHARED + [(start + at) % (1 << 32) for at in range(TOKENS // 2)]


def rate(run: Round, rounds: int, fresh: count[int]) -> float:
    """Return rounds per second of CPU time; only the pool's part is timed."""
    asked = [request(fresh) for _ in range(rounds)]
    gc.disable()
    began = time.process_time()
    reused = [run(tokens) for tokens in asked]
    took = time.process_time() - began
    gc.enable()
    if set(reused) != {len(SHARED)}:
        raise SystemExit(f"a pool found {sorted(set(reused))} tokens instead of {len(SHARED)}")
    return rounds / took


def compare(
    runs: dict[str, Round], sizes: dict[str, int], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Measure in turns, so that what slows one slows the others too."""
    fresh, rates = count(), {name: [] for name in runs}
    for name, run in runs.items():
        fill(run, sizes[name], fresh)
    for _ in range(args.repeats):
        for name, run in runs.items():
            rates[name].append(rate(run, args.rounds, fresh))
    return rates


def show(title: str, rates: dict[str, list[float]], of: str) -> None:
    print(f"\n{title}")
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, rates[of], strict=True))
        print(
            f"  {name:24} {statistics.median(found):8,.0f} per s"
            f"  ({min(found):,.0f} to {max(found):,.0f})  {ratio:.2f} x {of}"
        )


def memory(num_blocks: int, tokens_each: int) -> float:
    """Return the bytes per block of a pool that is full of chains so many tokens long, and has long been."""
    gc.collect()
    tracemalloc.start()
    pool = BlockPool(num_blocks, BLOCK, events=EventLog(max_events=1))
    params = PARAMS.model_copy(update={"num_tokens": tokens_each})
    for number in range(3 * num_blocks * BLOCK // tokens_each):  # most of it evicts
        pool.free(pool.allocate(params, range(number, number + tokens_each), salt=""))
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tier = pool.stats().tiers[0]
    if tier.cached < 0.99 * num_blocks:
        raise SystemExit(f"only {tier.cached} of {num_blocks} blocks are cached")
    return used / num_blocks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--vllm", type=Path, help="the wheel of vLLM, to compare with it")
    args = parser.parse_args()
    policies = ("lru", "lfu", "fifo", "ttl", "priority")
    runs = {"naive": naive_round(10_000)} | {name: pool_round(10_000, name) for name in policies}
    if args.vllm:
        runs = {"vllm": vllm_round(args.vllm, 10_000, BLOCK)} | runs
    show(
        "allocate and free, 10,000 blocks", compare(runs, dict.fromkeys(runs, 10_000), args), next(iter(runs))
    )
    sizes = {f"{int(size):,} blocks": int(size) for size in args.sizes.split(",")}
    runs = {name: pool_round(size, "lru") for name, size in sizes.items()}
    show("by the size of the pool, lru", compare(runs, sizes, args), next(iter(sizes)))
    del runs
    print(
        "\nmemory, 200,000 blocks, all of them cached; without the log of events, which has bounds of its own"
    )
    for tokens_each in (TOKENS, BLOCK):
        print(
            f"  chains of {tokens_each // BLOCK:3} blocks  {memory(200_000, tokens_each):6.0f} bytes a block"
        )


if __name__ == "__main__":
    main()
