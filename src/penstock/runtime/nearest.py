"""What to say about a name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the end of a sentence about the unknown ``name``: the nearest of ``known``, or all of them."""
    names = sorted(known)
    if near := difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(names)}" if names else "there are none"
