"""What an item costs between the author's `yield` and the bytes of a socket, as a ratio any machine can keep.

Processor time counts, the best of several rounds, and both sides are timed in turn: what slows one then slows
the other.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator

import pytest

from penstock.protocol.codec import ndjson
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

ITEMS = 10_000
ROUNDS = 7
MOST = 35.0  # times; 10.5 was measured, of which a bare generator is 1: about 0.12 and 1.25 µs per item

rt = Runtime()


@rt.streaming_command("tokens")
async def tokens() -> AsyncIterator[dict[str, object]]:
    for _ in range(ITEMS):
        yield {"text": "token ", "chunk": "token ", "finished": False}


async def bare() -> int:
    """Iterate, and do nothing."""
    count = 0
    async for _ in tokens():
        count += 1
    return count


async def served(app: App) -> int:
    """Run it as a call; take its frames as an HTTP stream has them."""
    live = await app.open(Start(command="tokens", is_stream=True), LOCAL)
    count = 0
    async with live.reader() as reader:
        async for batch in reader:
            count += ndjson(batch.lines).count(b'"streaming"')
    return count


async def test_an_item_costs_few_times_what_a_bare_one_costs() -> None:
    bests = {"bare": float("inf"), "served": float("inf")}
    async with App(rt) as app:
        gc.disable()
        try:
            for _ in range(ROUNDS):
                for name in bests:
                    began = time.process_time()
                    count = await (bare() if name == "bare" else served(app))
                    bests[name] = min(bests[name], time.process_time() - began)
                    assert count == ITEMS
        finally:
            gc.enable()
    assert bests["served"] / bests["bare"] < MOST
