"""The lines of the Prometheus text format 0.0.4 and of OpenMetrics 1.0.0, which differ in their heads only.

The Prometheus client writes the same at many times the cost; on the event loop of a server it would be felt
in every stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple

from penstock.observability.recorder import Histogram

Kind = Literal["counter", "gauge", "histogram", "info"]

_SUFFIX: dict[Kind, str] = {"counter": "_total", "info": "_info"}
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


class Family(NamedTuple):
    """One metric, whatever its labels.

    Attributes:
        name: Without a suffix; one that measures time ends with ``_seconds``.
        says: What it is, in one line.
    """

    name: str
    kind: Kind
    says: str

    def head(self, *, opened: bool) -> str:
        """Return what stands above its samples; ``opened`` for OpenMetrics."""
        if not opened:
            name, kind = self.name + _SUFFIX.get(self.kind, ""), self.kind
            return f"# HELP {name} {self.says}\n# TYPE {name} {'gauge' if kind == 'info' else kind}\n"
        unit = f"# UNIT {self.name} seconds\n" if self.name.endswith("_seconds") else ""
        return f"# HELP {self.name} {self.says}\n# TYPE {self.name} {self.kind}\n{unit}"

    def sample(self, labels: str, value: float) -> str:
        """Return the line of a counter, a gauge or an info."""
        return f"{self.name}{_SUFFIX.get(self.kind, '')}{{{labels}}} {value}\n"

    def samples(self, labels: str, histogram: Histogram) -> Iterable[str]:
        """Return the lines of a histogram; none for an empty one: most are never used."""
        counts = tuple(accumulate(histogram.counts))
        if not counts[-1]:
            return ()
        start = f'{self.name}_bucket{{{labels}{"," if labels else ""}le="'
        edges = _edges(histogram.bounds)
        buckets = [f'{start}{edge}"}} {count}\n' for edge, count in zip(edges, counts, strict=True)]
        total = f"{self.name}_sum{{{labels}}} {histogram.total}\n"
        return (*buckets, f"{self.name}_count{{{labels}}} {counts[-1]}\n", total)


def labels(**values: str) -> str:
    """Return labels as they stand between braces."""
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items())


@cache
def _edges(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(str, bounds), "+Inf")
