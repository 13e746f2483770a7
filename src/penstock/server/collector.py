"""Python's garbage collector, made for a server that keeps many small things for minutes.

Ended calls are kept for those who come back to them, and every full collection walks through all of them: in
pauses of 50 to 100 ms at 10,000 calls, which took a third of a busy server's time.  Calls leave no cycles
behind, so looking for some less often costs nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New objects before a look at the youngest; looks at one generation before a look at the next.
RARELY = (20_000, 20, 100)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect rarely while the block lasts, and never what was there before it (modules, a model)."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
