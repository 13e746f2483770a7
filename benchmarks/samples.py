"""The samples of a run, found by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Sample = dict[str, Any]
Rate = Callable[[Sample], float]


def wall(sample: Sample) -> float:
    """Return what came per second: items of streams, or else answers."""
    return float(sample["tokens_per_s"] if sample["items"] else sample["requests_per_s"])


def per_cpu(sample: Sample) -> float:
    """Return the same per second of the server's CPU time."""
    return wall(sample) / max(sample["server_cpu"], 0.001)


def rank(values: Iterable[float], share: float) -> float:
    """Return the value that a share of them do not exceed."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


class Samples:
    """The samples of a run."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._found: dict[tuple[str, str, int], dict[int, Sample]] = {}
        for sample in samples:
            key = (sample["workload"], sample["contender"], sample["connections"])
            self._found.setdefault(key, {})[sample["repeat"]] = sample

    def of(self, workload: str, contender: str, connections: int) -> list[Sample]:
        """Return one contender's, a repeat each."""
        return list(self._found.get((workload, contender, connections), {}).values())

    def pairs(self, one: tuple[str, str, int], other: tuple[str, str, int]) -> list[tuple[Sample, Sample]]:
        """Return those of two contenders, as far as they are of the same repeat."""
        first, second = self._found.get(one, {}), self._found.get(other, {})
        return [(first[repeat], second[repeat]) for repeat in first if repeat in second]
