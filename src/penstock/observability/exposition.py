"""``GET /metrics``: what a recorder has counted, in the Prometheus text format or as OpenMetrics.

Importing this loads the Prometheus client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from penstock.calls.admission import Admission
from penstock.observability.recorder import Histogram, Recorder, Tally

_FORMATS = {True: choose_encoder("application/openmetrics-text; version=1.0.0"), False: choose_encoder("")}
_OPENMETRICS = ("application/openmetrics-text", "1.0.0")

_WHOSE = ("command", "workflow")
Served = tuple[tuple[str, str], Tally]
T = TypeVar("T")


class Exposition:
    """Shows what a recorder has counted.

    Each has a registry of its own: several apps in one process do not clash.

    Args:
        recorder: Has counted it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Calls(recorder))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def __call__(self, accept: str) -> tuple[str, bytes]:
        """Return the metrics, behind their media type.

        Args:
            accept: What the client asks for, as in the header ``Accept``.
        """
        encode, media_type = _FORMATS[_prefers_openmetrics(accept)]
        return media_type, encode(self.registry)


def _prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is asked for, and the text format not more so (RFC 9110, 12.5.1)."""
    best = {True: 0.0, False: 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        given = dict(piece.split("=", 1) for piece in parameters if "=" in piece)
        open_ = (kind, given.get("version", "1.0.0")) == _OPENMETRICS
        if open_ or kind in ("text/plain", "text/*"):
            best[open_] = max(best[open_], _quality(given.get("q", "1")))
    return best[True] > 0 and best[True] >= best[False]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class _Calls(Collector):
    """What prometheus_client collects from a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        release = {"version": version("penstock")}
        self._build = InfoMetricFamily("penstock_build", "The release that runs.", release)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        recorder = self._recorder
        served: list[Served] = [((name, ""), tally) for name, tally in recorder.commands.items()]
        served += [(("", name), tally) for name, tally in recorder.workflows.items()]
        yield self._build
        yield from _ended(served)
        yield _refused(recorder)
        yield from _gauges(_CALLS, _WHOSE, served)
        yield from _gauges(_DOORS, ("command",), (((n,), door) for n, door in recorder.admissions.items()))
        yield from _times(served)
        yield from _cancels(served)


def _ended(served: Iterable[Served]) -> Iterator[Metric]:
    calls = CounterMetricFamily("penstock_calls", "Calls that ended.", labels=(*_WHOSE, "status", "reason"))
    items = CounterMetricFamily("penstock_items", "Items of calls that ended.", labels=_WHOSE)
    for whose, tally in served:
        items.add_metric(whose, tally.items)
        for outcome, count in tally.outcomes.items():
            calls.add_metric((*whose, *outcome), count)
    yield from (calls, items)


def _refused(recorder: Recorder) -> Metric:
    family = CounterMetricFamily("penstock_refusals", "Calls refused at admission.", labels=("code",))
    for code, count in recorder.refusals.items():
        family.add_metric((code,), count)
    return family


@dataclass(frozen=True)
class _Gauge(Generic[T]):
    name: str
    says: str
    read: Callable[[T], int]


_CALLS = (
    _Gauge[Tally]("calls_in_flight", "Calls without a terminal frame.", lambda tally: tally.in_flight),
    _Gauge[Tally](
        "cancelled_calls_running",
        "Calls that were cancelled and whose work runs on.",
        lambda tally: tally.cancelled,
    ),
    _Gauge[Tally](
        "stuck_calls",
        "Calls given up after their cancel, whose work runs on.",
        lambda tally: len(tally.stuck),
    ),
)
_DOORS = (
    _Gauge[Admission](
        "calls_running", "Calls that have a permit: their work has not stopped.", lambda door: door.running
    ),
    _Gauge[Admission]("calls_queued", "Calls that wait for a permit.", lambda door: door.waiting),
    _Gauge[Admission]("permits", "Calls that may run at once.", lambda door: door.permits),
    _Gauge[Admission]("queue_places", "Calls that may wait for a permit.", lambda door: door.places),
)


def _gauges(
    gauges: Iterable[_Gauge[T]], labels: tuple[str, ...], of: Iterable[tuple[tuple[str, ...], T]]
) -> Iterator[Metric]:
    known = tuple(of)
    for gauge in gauges:
        family = GaugeMetricFamily(f"penstock_{gauge.name}", gauge.says, labels=labels)
        for whose, subject in known:
            family.add_metric(whose, gauge.read(subject))
        yield family


_TIMES: tuple[tuple[str, str, Callable[[Tally], Histogram]], ...] = (
    ("queue", "Wait for a permit.", lambda tally: tally.queue),
    ("time_to_first_item", "From acceptance to the first item.", lambda tally: tally.first_item),
    ("gap", "Between items that leave, or bursts of them.", lambda tally: tally.gap),
    ("call_duration", "From acceptance to the terminal frame.", lambda tally: tally.duration),
)


def _times(served: Iterable[Served]) -> Iterator[Metric]:
    for name, says, read in _TIMES:
        family = HistogramMetricFamily(f"penstock_{name}", says, labels=_WHOSE, unit="seconds")
        for whose, tally in served:
            _add(family, whose, read(tally))
        yield family


def _cancels(served: Iterable[Served]) -> Iterator[Metric]:
    labels = (*_WHOSE, "reason")
    asked = CounterMetricFamily("penstock_cancels", "Cancels asked for.", labels=labels)
    delivered = HistogramMetricFamily(
        "penstock_cancel_delivery", "From a cancel to the code that feels it.", labels=labels, unit="seconds"
    )
    stopped = HistogramMetricFamily(
        "penstock_cancel_stop", "From a cancel to the end of the work.", labels=labels, unit="seconds"
    )
    for whose, tally in served:
        for reason, cancels in tally.cancels.items():
            asked.add_metric((*whose, reason), cancels.count)
            _add(delivered, (*whose, reason), cancels.delivered)
            _add(stopped, (*whose, reason), cancels.stopped)
    yield from (asked, delivered, stopped)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    """Add a histogram, unless it is empty: most commands never have most of them."""
    counts = tuple(accumulate(histogram.counts))
    if counts[-1]:
        bounds = (*map(str, histogram.bounds), "+Inf")
        family.add_metric(labels, tuple(zip(bounds, counts, strict=True)), histogram.total)
