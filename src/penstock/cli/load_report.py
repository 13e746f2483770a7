"""What a load came to, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from penstock.cli.load import Measured

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
BARS = 10
BAR_WIDTH = 40

_TIMES = {"first_item_ms": "first item, ms", "gap_ms": "gap, ms", "total_ms": "total, ms"}


def as_json(measured: Measured) -> str:
    """Return it as one line of JSON."""
    return json.dumps(summary(measured))


def as_text(measured: Measured) -> str:
    """Return it as a table, with how the calls' times are spread below."""
    told, plan = summary(measured), measured.plan
    lines = [
        f"{plan.command}: {told['calls']} calls in {told['elapsed_s']:.2f} s, {plan.concurrency} at once",
        f"{told['calls_per_s']:.1f} calls/s · {told['items']} items · {told['items_per_s']:.1f} items/s",
    ]
    if measured.errors:
        codes = ", ".join(f"{code} {count}" for code, count in measured.errors.most_common())
        lines.append(f"errors: {codes}")
    if measured.totals:
        lines += ["", *_table(told), "", "calls by their total, ms", *histogram(measured.totals)]
    return "\n".join(lines)


def summary(measured: Measured) -> dict[str, Any]:
    """Return the figures; rates are of calls that completed, times in milliseconds."""
    elapsed, completed = measured.elapsed_s, len(measured.totals)
    return {
        "command": measured.plan.command,
        "concurrency": measured.plan.concurrency,
        "elapsed_s": elapsed,
        "calls": completed + sum(measured.errors.values()),
        "completed": completed,
        "errors": dict(measured.errors),
        "items": measured.items,
        "calls_per_s": completed / elapsed if elapsed else 0.0,
        "items_per_s": measured.items / elapsed if elapsed else 0.0,
        "first_item_ms": spread(measured.first),
        "gap_ms": spread(measured.gaps),
        "total_ms": spread(measured.totals),
    }


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return quantiles, by nearest rank, and the mean, in milliseconds; None if there is nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    told = {name: ordered[ceil(part * len(ordered)) - 1] * 1000 for name, part in QUANTILES.items()}
    return {**told, "mean": sum(ordered) / len(ordered) * 1000}


def histogram(seconds: Sequence[float]) -> list[str]:
    """Return lines of bars: how many times lie in each tenth of the way from the least to the greatest."""
    least, greatest = min(seconds), max(seconds)
    step = (greatest - least) / BARS
    counts = [0] * BARS
    for time in seconds:
        counts[min(BARS - 1, int((time - least) / step)) if step else 0] += 1
    if not step:
        counts = counts[:1]
    longest = max(counts)
    return [
        f"{(least + step * (number + 1)) * 1000:>10.2f} "
        f"{'█' * ceil(count / longest * BAR_WIDTH):<{BAR_WIDTH}} {count}"
        for number, count in enumerate(counts)
    ]


def _table(told: Mapping[str, Any]) -> list[str]:
    columns = (*QUANTILES, "mean")
    lines = [" " * 14 + "".join(f"{column:>11}" for column in columns)]
    for name, shown in _TIMES.items():
        if (times := told[name]) is not None:
            lines.append(f"{shown:<14}" + "".join(f"{times[column]:>11.2f}" for column in columns))
    return lines
