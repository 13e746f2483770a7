"""What the figures should be, and whether they are.

A figure is the median of its repeats; a ratio or a difference is taken within each repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from samples import Rate, Samples, per_cpu, rank, wall

Key = tuple[str, str, int]
Figure = Callable[[Samples, Rate], list[float]]  # of each repeat; none if it was not measured

AHEAD = (0, 1, 50, 500)
NDJSON = ("stream-256tok", "penstock_scripted", 32)


@dataclass(frozen=True)
class Aim:
    """One figure and its bound.

    Attributes:
        figure: Finds it.
        bound: What it should be at least, or at most.
        unit: Behind the number; a ratio has "×".
        is_rate: Whether it can be told per second of the server's CPU time as well.
    """

    what: str
    figure: Figure
    bound: float
    unit: str
    at_most: bool = False
    is_rate: bool = True

    def row(self, samples: Samples) -> str:
        """Return its row of the report."""
        found = self.figure(samples, wall)
        cells = [self.what, f"{'at most' if self.at_most else 'at least'} {self._shown(self.bound)}"]
        if not found:
            return f"| {' | '.join((*cells, '', '', 'not measured'))} |"
        value = median(found)
        met = value <= self.bound if self.at_most else value >= self.bound
        by_cpu = self._shown(median(self.figure(samples, per_cpu))) if self.is_rate else ""
        return f"| {' | '.join((*cells, self._shown(value), by_cpu, 'met' if met else '**missed**'))} |"

    def _shown(self, value: float) -> str:
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return f"{number} {self.unit}".strip()


def rate(key: Key) -> Figure:
    """What comes per second."""
    return lambda samples, of: [of(sample) for sample in samples.of(*key)]


def ratio(one: Key, other: Key) -> Figure:
    """One rate as a share of another."""
    return lambda samples, of: [of(first) / of(second) for first, second in samples.pairs(one, other)]


def field(key: Key, name: str, part: str = "") -> Figure:
    """A field of a sample, or a part of it."""

    def find(samples: Samples, _: Rate) -> list[float]:
        values = [sample[name] for sample in samples.of(*key)]
        return [float(value[part] if part else value) for value in values]

    return find


def added(one: Key, other: Key) -> Figure:
    """What the first item takes longer."""

    def find(samples: Samples, _: Rate) -> list[float]:
        pairs = samples.pairs(one, other)
        return [first["first_item_ms"]["p50"] - second["first_item_ms"]["p50"] for first, second in pairs]

    return find


def felt(contender: str) -> Figure:
    """The worst p99 over all numbers of requests ahead, the repeats taken together."""

    def find(samples: Samples, _: Rate) -> list[float]:
        found = [samples.of("disconnect", contender, ahead) for ahead in AHEAD]
        return [max(rank(pooled(repeats), 0.99) for repeats in found)] if all(found) else []

    def pooled(repeats: Iterable[dict[str, list[float]]]) -> list[float]:
        return [one for sample in repeats for one in sample["felt_ms"]]

    return find


def sooner(workload: str, one: str, other: str, connections: int) -> Figure:
    """How many times sooner the one is felt than the other, by their p50."""

    def find(samples: Samples, _: Rate) -> list[float]:
        pairs = samples.pairs((workload, one, connections), (workload, other, connections))
        return [rank(second["felt_ms"], 0.5) / rank(first["felt_ms"], 0.5) for first, second in pairs]

    return find


def loaded(samples: Samples, _: Rate) -> list[float]:
    """How many heavy packages the import loads."""
    return [float(len(sample["heavy"])) for sample in samples.of("startup", "import", 1)]


def _paced(streams: int) -> Aim:
    what = f"p99 gap of {streams:,} streams of 50 tokens/s"
    figure = field(("paced", "penstock", streams), "gap_ms", "p99")
    return Aim(what, figure, 40, "ms", at_most=True, is_rate=False)


def _unary(connections: int) -> Aim:
    ours, floor = (("unary-add", name, connections) for name in ("penstock_add", "bare"))
    plural = "connection" if connections == 1 else "connections"
    return Aim(f"`add`, {connections} {plural}, of bare", ratio(ours, floor), 0.5, "×")


def _adapter(engine: str) -> Aim:
    what = f"engine `{engine}`, a token, above the HTTP client"
    figure = field(("adapters", engine, 1), "above_us")
    return Aim(what, figure, 10, "µs", at_most=True, is_rate=False)


AIMS = (
    Aim("NDJSON, 32 connections", rate(NDJSON), 500_000, "tokens/s"),
    Aim("NDJSON, 1,000 connections, of 32", ratio((*NDJSON[:2], 1000), NDJSON), 0.8, "×"),
    Aim(
        "SSE, 32 connections, of NDJSON",
        ratio(("stream-sse", "penstock_sse", 32), ("stream-sse", "penstock_ndjson", 32)),
        0.85,
        "×",
    ),
    Aim(
        "OpenAI's chat, 32 connections, of NDJSON",
        ratio(("stream-openai", "penstock_openai", 32), ("stream-openai", "penstock_ndjson", 32)),
        0.8,
        "×",
    ),
    Aim(
        "WebSocket, 32 connections, of bare with joined writes",
        ratio(("ws-256tok", "penstock_scripted", 32), ("ws-256tok", "bare", 32)),
        0.7,
        "×",
    ),
    Aim(
        "generators in threads, 32 connections",
        rate(("stream-threads", "penstock_threads", 32)),
        250_000,
        "tokens/s",
    ),
    _unary(1),
    _unary(32),
    Aim(
        "first item, p50, more than bare",
        added(("first-item", "penstock_scripted", 1), ("first-item", "bare", 1)),
        0.3,
        "ms",
        at_most=True,
        is_rate=False,
    ),
    Aim("through a gateway, 32 connections", rate(("gateway", "penstock_gateway", 32)), 250_000, "tokens/s"),
    Aim(
        "Clarifai's link, 8 data streams, of a bare grpcio stream",
        ratio(("clarifai-link", "penstock", 8), ("clarifai-link", "bare", 8)),
        0.9,
        "×",
    ),
    Aim(
        "first item through a gateway, p50, more than without",
        added(("gateway-first", "penstock_gateway", 1), ("gateway-first", "penstock_scripted", 1)),
        1.0,
        "ms",
        at_most=True,
        is_rate=False,
    ),
    _paced(500),
    _paced(2000),
    Aim("disconnect of a silent model, p99", felt("silent"), 5, "ms", at_most=True, is_rate=False),
    Aim("disconnect of a flooding model, p99", felt("flood"), 5, "ms", at_most=True, is_rate=False),
    *map(_adapter, ("openai", "anthropic", "sglang", "sglang_new")),
    Aim(
        "first token, p50, with prefix-aware routing, sooner than in turns",
        sooner("kv-routing", "prefix", "rounds", 1),
        2,
        "×",
        is_rate=False,
    ),
    Aim(
        "memory per idle WebSocket",
        field(("ws-idle", "penstock", 2000), "idle_kb_per_socket"),
        40,
        "KB",
        at_most=True,
        is_rate=False,
    ),
    Aim(
        "`penstock --help`",
        field(("startup", "help", 1), "start_ms", "p50"),
        150,
        "ms",
        at_most=True,
        is_rate=False,
    ),
    Aim(
        "uvicorn, starlette, grpc, xllamacpp that `import penstock` loads",
        loaded,
        0,
        "",
        at_most=True,
        is_rate=False,
    ),
)


def table(samples: Samples) -> list[str]:
    """Return the lines of the table."""
    head = "| what | aim | measured | per CPU second | |"
    return [head, "|---|---|---|---|---|", *(aim.row(samples) for aim in AIMS)]
