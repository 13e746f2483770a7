"""The pace of a model that waits for nobody."""

from __future__ import annotations

import asyncio
import time

GAP_S = 0.02  # 50 tokens/s


class Pace:
    """Sleeps until the next token is due; one that was late does not delay those behind it."""

    def __init__(self) -> None:
        self._due = time.monotonic()

    async def __call__(self, gap_s: float) -> None:
        """Wait for the next token."""
        self._due += gap_s
        wait_s = self._due - time.monotonic()
        if wait_s > 0:  # what was due is there at once
            await asyncio.sleep(wait_s)
