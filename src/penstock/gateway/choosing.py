"""Which runner gets a call: one that has room, by its load and weight and by what it holds of the call's
prompt, or the one a key sticks to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from penstock.gateway.runner import Runner
from penstock.kv.prompts import read_prompt, takes_prompt
from penstock.protocol.messages import Route
from penstock.protocol.runners import labels_match

PREFIX_WORTH = 0.6
"""How much fuller a runner may be that holds all of a prompt, of the calls that it runs at once: half of
them, and a little more, as the end of a prompt is new."""
FEWEST_BLOCKS = 16
"""A shorter prompt is worth less, as little is saved by holding it."""


@dataclass(eq=False)
class Wanted:
    """What a call wants of its runner.

    Attributes:
        not_on: Where it must not run.
        input: JSON.
    """

    command: str
    route: Route | None = None
    not_on: Runner | None = None
    input: bytes = b""

    @cached_property
    def chain(self) -> Sequence[bytes]:
        """The blocks of its prompt, if it has one."""
        prompt = read_prompt(self.input)
        return () if prompt is None else prompt.chain()


def choose(runners: Iterable[Runner], wanted: Wanted) -> Runner | None:
    """Return the runner for a call; None if none has room for it now.

    A key's runner is found by how well the two go together (rendezvous hashing): while it is there, and has
    room, it stays the same, whichever others come and go.
    """
    command, route = wanted.command, wanted.route
    free = [
        runner
        for runner in runners
        if runner is not wanted.not_on and runner.has_room(command) and matches(runner, route)
    ]
    if not free:
        return None
    if route is not None and route.sticky is not None:
        sticky = route.sticky
        return max(free, key=lambda runner: affinity(sticky, runner))
    chain = _chain_to_match(free, wanted)
    chosen = min(free, key=lambda runner: _score(runner, command, chain))
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


def _chain_to_match(free: Sequence[Runner], wanted: Wanted) -> Sequence[bytes]:
    if not any(runner.prefixes.blocks for runner in free):
        return ()
    return wanted.chain if takes_prompt(free[0].offers[wanted.command].input_schema) else ()


def _score(runner: Runner, command: str, chain: Sequence[bytes]) -> tuple[float, int, float]:
    """Return how little a runner suits a call; docs/gateway.md, clause 18."""
    fullness = runner.load / (runner.concurrency(command) * runner.weight)
    matched = runner.prefixes.longest(chain) if chain else 0
    if not matched:
        return fullness, 0, runner.turn
    return fullness - PREFIX_WORTH * matched / max(len(chain), FEWEST_BLOCKS), -matched, runner.turn
