"""Which runner gets a call: one that has room, by its load and weight, or the one a key sticks to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from penstock.gateway.runner import Runner
from penstock.protocol.messages import Route
from penstock.protocol.runners import labels_match


def choose(
    runners: Iterable[Runner], command: str, route: Route | None, not_on: Runner | None = None
) -> Runner | None:
    """Return the runner for a call; None if none has room for it now.

    A key's runner is found by how well the two go together (rendezvous hashing): while it is there, and has
    room, it stays the same, whichever others come and go.

    Args:
        not_on: Where it must not run.
    """
    free = [
        runner
        for runner in runners
        if runner is not not_on and runner.has_room(command) and matches(runner, route)
    ]
    if not free:
        return None
    if route is not None and route.sticky is not None:
        sticky = route.sticky
        return max(free, key=lambda runner: affinity(sticky, runner))
    chosen = min(free, key=lambda runner: (_fullness(runner, command), runner.turn))
    chosen.turn += 1 / chosen.weight
    return chosen


def matches(runner: Runner, route: Route | None) -> bool:
    """Whether a call may run there by what it asks for."""
    return route is None or labels_match(route.labels, runner.labels)


def affinity(sticky: str, runner: Runner) -> float:
    """Return how well a key and a runner go together; of all runners the greatest wins, each in proportion to
    its weight."""
    digest = hashlib.blake2b(f"{runner.name}\0{sticky}".encode(), digest_size=8).digest()
    chance = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -runner.weight / math.log(chance)


def _fullness(runner: Runner, command: str) -> float:
    return runner.load / (runner.concurrency(command) * runner.weight)
