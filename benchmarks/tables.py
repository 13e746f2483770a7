"""The tables of the report: one of each kind of sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from samples import Rate, Sample, per_cpu, rank, wall
from workloads import Contender, Workload

Table = Callable[[Workload, str, list[Sample]], Iterable[str]]


def tables(workload: Workload, samples: list[Sample]) -> Iterable[str]:
    """Return the lines of a workload's tables, a blank one before each."""
    first = samples[0]
    if "felt_ms" in first:
        return _by_connections(workload, samples, _felt)
    if "start_ms" in first:
        return ("", *_starts(workload, samples))
    kinds = {"above_us": _above, "idle_kb_per_socket": _memory, "gap_ms": _gaps, "tokens_per_s": _rates}
    return _by_connections(workload, samples, next(make for name, make in kinds.items() if name in first))


def _by_connections(workload: Workload, samples: list[Sample], make: Table) -> Iterable[str]:
    for connections in sorted({sample["connections"] for sample in samples}):
        chosen = [sample for sample in samples if sample["connections"] == connections]
        unit = workload.unit if connections == 1 else workload.units
        yield ""
        yield from make(workload, f"{connections:,} {unit}", chosen)


def _own(workload: Workload, samples: list[Sample]) -> Iterable[tuple[Contender, list[Sample]]]:
    for contender in workload.contenders:
        own = [sample for sample in samples if sample["contender"] == contender.name]
        if own:
            yield contender, own


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rates(workload: Workload, title: str, samples: list[Sample]) -> Iterable[str]:
    unit = "tokens" if workload.items else "requests"
    first = "first item" if workload.items else "answer"
    yield _line(
        title,
        f"{unit}/s: median (min to max)",
        f"ratio to {workload.floor}",
        f"{unit} per CPU second",
        "ratio",
        "CPU: server, load",
        f"{first} p50 / p99, ms",
    )
    yield "|---|---|---|---|---|---|---|"
    floor = {sample["repeat"]: sample for sample in samples if sample["contender"] == workload.floor}
    for contender, own in _own(workload, samples):
        yield _rate_row(contender.name, own, floor)


def _rate_row(name: str, own: list[Sample], floor: dict[int, Sample]) -> str:
    def ratio(of: Rate) -> str:
        found = [of(sample) / of(floor[sample["repeat"]]) for sample in own if sample["repeat"] in floor]
        return f"{median(found):.2f}" if found else ""

    rates = [wall(sample) for sample in own]
    return _line(
        f"`{name}`",
        f"{number(median(rates))} ({number(min(rates))} to {number(max(rates))})",
        ratio(wall),
        number(median(map(per_cpu, own))),
        ratio(per_cpu),
        _cpu(own),
        _times(own, "first_item_ms"),
    )


def _gaps(workload: Workload, title: str, samples: list[Sample]) -> Iterable[str]:
    yield _line(title, "gap p50 / p99, ms", "tokens/s", "CPU: server, load", "load late by p50 / p99, ms")
    yield "|---|---|---|---|---|"
    for contender, own in _own(workload, samples):
        yield _line(
            f"`{contender.name}`",
            _times(own, "gap_ms"),
            number(median(sample["paced_tokens_per_s"] for sample in own)),
            _cpu(own),
            _times(own, "load_lag_ms"),
        )


def _memory(workload: Workload, title: str, samples: list[Sample]) -> Iterable[str]:
    yield _line(title, "KB per idle socket: median (min to max)", "after a call on each")
    yield "|---|---|---|"
    for contender, own in _own(workload, samples):
        states = ([sample[f"{state}_kb_per_socket"] for sample in own] for state in ("idle", "used"))
        yield _line(
            f"`{contender.name}`",
            *(f"{median(of):.1f} ({min(of):.1f} to {max(of):.1f})" for of in states),
        )


def _above(workload: Workload, title: str, samples: list[Sample]) -> Iterable[str]:
    yield _line(title, "the client, µs a token", "the engine", "above: median (min to max)", "and a call, µs")
    yield "|---|---|---|---|---|"
    for contender, own in _own(workload, samples):
        above = [sample["above_us"] for sample in own]
        yield _line(
            f"`{contender.name}`",
            *(f"{median(sample[of] for sample in own):.1f}" for of in ("client_us", "adapter_us")),
            f"{median(above):.1f} ({min(above):.1f} to {max(above):.1f})",
            number(median(sample["call_us"] for sample in own)),
        )


def _felt(workload: Workload, title: str, samples: list[Sample]) -> Iterable[str]:
    yield _line(title, "times", "p50, ms", "p99, ms", "max, ms")
    yield "|---|---|---|---|---|"
    for contender, own in _own(workload, samples):
        pooled = [one for sample in own for one in sample["felt_ms"]]
        shown = (f"{rank(pooled, share):.2f}" for share in (0.5, 0.99, 1.0))
        yield _line(f"`{contender.name}`", f"{len(pooled):,}", *shown)


def _starts(workload: Workload, samples: list[Sample]) -> Iterable[str]:
    yield _line("", "starts", "p50, ms: median (min to max)", "CPU, ms", "most goes to the import of, ms")
    yield "|---|---|---|---|---|"
    for contender, own in _own(workload, samples):
        medians = [sample["start_ms"]["p50"] for sample in own]
        imports = ", ".join(f"{name} {took:g}" for name, took in own[-1]["imports_ms"].items())
        yield _line(
            contender.what,
            f"{sum(sample['starts'] for sample in own)}",
            f"{median(medians):.0f} ({min(medians):.0f} to {max(medians):.0f})",
            f"{median(sample['start_cpu_ms']['p50'] for sample in own):.0f}",
            imports,
        )


def _cpu(own: list[Sample]) -> str:
    shares = [median(sample[side] for sample in own) for side in ("server_cpu", "load_cpu") if side in own[0]]
    return ", ".join(f"{share:.2f}" for share in shares)


def _times(own: list[Sample], name: str) -> str:
    if name not in own[0]:
        return ""
    return " / ".join(f"{median(sample[name][at] for sample in own):.2f}" for at in ("p50", "p99"))


def number(value: float) -> str:
    """Three digits that count, as more would claim more than was measured."""
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}"
