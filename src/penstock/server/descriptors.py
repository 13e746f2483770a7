"""How many connections this process can have: each takes a file descriptor, and so do models and engines."""

from __future__ import annotations

import contextlib

MOST_CONNECTIONS = 10_000
"""Of a server that is not told: 23 KB of memory each where nothing happens on them."""
_ENOUGH = 65_536  # descriptors; without an end, whoever walks over all of them would never come to one
_KEPT_FREE = 0.2  # of them: for files, and for connections to engines


def raise_descriptor_limit() -> int | None:
    """Let this process have as many descriptors as it may; return how many, None where that is not known.

    The limit that a shell or service sets by default, often 1,024, is there for programs that use `select`.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _ENOUGH if soft == resource.RLIM_INFINITY else soft
    with contextlib.suppress(OSError, ValueError):  # macOS has a smaller bound that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def most_connections(asked: int | None, descriptors: int | None) -> int:
    """Return how many connections to have at a time.

    Args:
        asked: What the operator says.
        descriptors: As many as the process may have; None where that is not known.
    """
    if asked is not None:
        return asked
    if descriptors is None:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, int(descriptors * (1 - _KEPT_FREE))))
