"""``GET /metrics``: what a recorder has counted, in the Prometheus text format or as OpenMetrics.

Importing this loads the Prometheus client, which says how the process is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from penstock.calls.admission import Admission
from penstock.calls.engine_cache import EngineCache
from penstock.calls.traffic import Traffic
from penstock.observability.cache_families import cache_families
from penstock.observability.recorder import Cancels, Histogram, Recorder, Tally
from penstock.observability.text import Family, labels
from penstock.observability.traffic_families import traffic_families

_FORMATS = {True: choose_encoder("application/openmetrics-text; version=1.0.0"), False: choose_encoder("")}
_OPENMETRICS = ("application/openmetrics-text", "1.0.0")

Served = tuple[str, Tally]  # the labels that say whose it is
Shown = tuple[Family, Iterable[str]]


class Exposition:
    """Shows what a recorder has counted.

    Each has a registry of its own: several apps in one process do not clash.

    Args:
        recorder: Has counted it.
        caches: KV caches of engines, which are shown as they are then.
    """

    def __init__(self, recorder: Recorder, caches: Iterable[EngineCache] = ()) -> None:
        self._recorder = recorder
        self._caches = caches
        self._release = labels(version=version("penstock"))
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def __call__(self, accept: str, traffic: Traffic | None = None) -> tuple[str, bytes]:
        """Return the metrics, behind their media type.

        Args:
            accept: What the client asks for, as in the header ``Accept``.
            traffic: What a server has answered; without it that is left out.
        """
        opened = _prefers_openmetrics(accept)
        encode, media_type = _FORMATS[opened]
        shown = (*self._own(), *(() if traffic is None else traffic_families(traffic)))
        own = "".join(line for family, lines in shown for line in (family.head(opened=opened), *lines))
        return media_type, own.encode() + encode(
            self._process
        )  # OpenMetrics ends with a mark, which it writes

    def _own(self) -> Iterator[Shown]:
        recorder = self._recorder
        served = [(labels(command=name, workflow=""), tally) for name, tally in recorder.commands.items()]
        served += [(labels(command="", workflow=name), tally) for name, tally in recorder.workflows.items()]
        yield _BUILD, [_BUILD.sample(self._release, 1)]
        yield from _ended(served)
        yield _refused([*served, (labels(command="", workflow=""), recorder.unserved)])
        for family, read in _CALLS:
            yield family, [family.sample(whose, read(tally)) for whose, tally in served]
        doors = [(labels(command=name), door) for name, door in recorder.admissions.items()]
        for family, look in _DOORS:
            yield family, [family.sample(whose, look(door)) for whose, door in doors]
        for family, histogram in _TIMES:
            yield (
                family,
                [line for whose, tally in served for line in family.samples(whose, histogram(tally))],
            )
        yield _tokens(served)
        yield from _cancels(served)
        yield from cache_families(self._caches)
        yield _LOOP, _LOOP.samples("", recorder.loop)


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


_BUILD = Family("penstock_build", "info", "The release that runs.")
_ENDED = Family("penstock_calls", "counter", "Calls that ended.")
_ITEMS = Family("penstock_items", "counter", "Items of calls that ended.")
_REFUSALS = Family("penstock_refusals", "counter", "Calls refused at admission.")
_CALLS: tuple[tuple[Family, Callable[[Tally], int]], ...] = (
    (
        Family("penstock_calls_in_flight", "gauge", "Calls without a terminal frame."),
        lambda tally: tally.in_flight,
    ),
    (
        Family(
            "penstock_cancelled_calls_running", "gauge", "Calls that were cancelled and whose work runs on."
        ),
        lambda tally: tally.cancelled,
    ),
    (
        Family("penstock_stuck_calls", "gauge", "Those of them whose work should have stopped long ago."),
        lambda tally: len(tally.stuck),
    ),
)
_DOORS: tuple[tuple[Family, Callable[[Admission], int]], ...] = (
    (
        Family("penstock_calls_running", "gauge", "Calls that have a permit: their work has not stopped."),
        lambda door: door.running,
    ),
    (Family("penstock_calls_queued", "gauge", "Calls that wait for a permit."), lambda door: door.waiting),
    (Family("penstock_permits", "gauge", "Calls that may run at once."), lambda door: door.permits),
    (Family("penstock_queue_places", "gauge", "Calls that may wait for a permit."), lambda door: door.places),
)
_TIMES: tuple[tuple[Family, Callable[[Tally], Histogram]], ...] = (
    (Family("penstock_queue_seconds", "histogram", "Wait for a permit."), lambda tally: tally.queue),
    (
        Family("penstock_time_to_first_item_seconds", "histogram", "From acceptance to the first item."),
        lambda tally: tally.first_item,
    ),
    (
        Family("penstock_gap_seconds", "histogram", "Between items that leave, or bursts of them."),
        lambda tally: tally.gap,
    ),
    (
        Family("penstock_call_duration_seconds", "histogram", "From acceptance to the terminal frame."),
        lambda tally: tally.duration,
    ),
)
_TOKENS = Family("penstock_call_tokens", "histogram", "Tokens of calls that ended, as engines count them.")
_CANCELS = Family("penstock_cancels", "counter", "Cancels asked for.")
_STAGES: tuple[tuple[Family, Callable[[Cancels], Histogram]], ...] = (
    (
        Family("penstock_cancel_delivery_seconds", "histogram", "From a cancel to the code that feels it."),
        lambda cancels: cancels.delivered,
    ),
    (
        Family("penstock_cancel_leaving_seconds", "histogram", "From a cancel to the code that has left."),
        lambda cancels: cancels.acknowledged,
    ),
    (
        Family(
            "penstock_cancel_confirmation_seconds", "histogram", "From a cancel to the engine's word on it."
        ),
        lambda cancels: cancels.confirmed,
    ),
    (
        Family("penstock_cancel_stop_seconds", "histogram", "From a cancel to the end of the work."),
        lambda cancels: cancels.stopped,
    ),
)

_LOOP = Family(
    "penstock_event_loop_delay_seconds",
    "histogram",
    "From a callback that is due to its turn, while calls run.",
)


def _ended(served: Iterable[Served]) -> Iterator[Shown]:
    outcomes = [
        (f"{whose},{labels(status=status, reason=reason)}", count)
        for whose, tally in served
        for (status, reason), count in tally.outcomes.items()
    ]
    yield _ENDED, [_ENDED.sample(*outcome) for outcome in outcomes]
    yield _ITEMS, [_ITEMS.sample(whose, tally.items) for whose, tally in served]


def _refused(served: Iterable[Served]) -> Shown:
    return _REFUSALS, [
        _REFUSALS.sample(f"{whose},{labels(code=code)}", count)
        for whose, tally in served
        for code, count in tally.refusals.items()
    ]


def _tokens(served: Iterable[Served]) -> Shown:
    return _TOKENS, [
        line
        for whose, tally in served
        for kind, counted in tally.tokens.items()
        for line in _TOKENS.samples(f"{whose},{labels(type=kind)}", counted)
    ]


def _cancels(served: Iterable[Served]) -> Iterator[Shown]:
    known = [
        (f"{whose},{labels(reason=reason)}", cancels)
        for whose, tally in served
        for reason, cancels in tally.cancels.items()
    ]
    yield _CANCELS, [_CANCELS.sample(whose, cancels.count) for whose, cancels in known]
    for family, stage in _STAGES:
        yield family, [line for whose, cancels in known for line in family.samples(whose, stage(cancels))]
