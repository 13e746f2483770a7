"""Counts what happens to calls, in plain numbers; ``exposition`` shows them.

Everything here runs on the event loop of the calls, so nothing needs a lock: an observation costs a fifth of
a microsecond, and several times that with the counters of a metrics library.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from penstock.calls.admission import Admission
from penstock.calls.live import Live
from penstock.calls.observer import Observer
from penstock.errors import CallError
from penstock.protocol.call import Ending, State

# Those of OpenTelemetry's conventions for generative AI, and smaller ones: a call need not be a model's.
CALL_S = (0.001, 0.0025, 0.005, *(0.01 * 2**n for n in range(14)))  # to 81.92
FIRST_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
GAP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
# A wait for a permit, and the way of a cancel: nothing at all, or as long as somebody's patience.
TOKENS = tuple(float(4**n) for n in range(14))  # theirs as they are
WAIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_KINDS = ("input", "output")  # of tokens
_COMPLETED = (State.COMPLETED.label, "")


class Histogram:
    """How many values fell into each bucket.

    Args:
        bounds: The largest value of each bucket, ascending; a last one takes what is above.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Cancels:
    """The cancels of one cause.

    Attributes:
        count: How many were asked for.
        delivered: Seconds until the author's code felt them.
        acknowledged: Seconds until it had left.
        confirmed: Seconds until the engine below had confirmed that its work has stopped.
        stopped: Seconds until the work had really stopped.
    """

    __slots__ = ("acknowledged", "confirmed", "count", "delivered", "stopped")

    def __init__(self) -> None:
        self.count = 0
        self.delivered = Histogram(WAIT_S)
        self.acknowledged = Histogram(WAIT_S)
        self.confirmed = Histogram(WAIT_S)
        self.stopped = Histogram(WAIT_S)


class Tally:
    """What has happened to the calls of one command, or of one workflow.

    Attributes:
        in_flight: Calls without a terminal frame.
        cancelled: Calls whose work runs on after their cancel.
        stuck: The request ids of those that have been given up.
        items: Items of the calls that ended.
        outcomes: Calls that ended, by the status of the terminal frame and its code or reason.
        refusals: Calls that were refused, by code.
        tokens: Of calls that ended, as their engine counted them, by kind: ``input`` and ``output``.
        cancels: By what caused them.
    """

    __slots__ = (
        "cancelled",
        "cancels",
        "duration",
        "first_item",
        "gap",
        "in_flight",
        "items",
        "outcomes",
        "queue",
        "refusals",
        "stuck",
        "tokens",
    )

    def __init__(self) -> None:
        self.in_flight = self.cancelled = self.items = 0
        self.stuck: set[str] = set()
        self.outcomes: Counter[tuple[str, str]] = Counter({_COMPLETED: 0})
        self.refusals: Counter[str] = Counter()
        self.tokens = {kind: Histogram(TOKENS) for kind in _KINDS}
        self.cancels: defaultdict[str, Cancels] = defaultdict(Cancels)
        self.queue = Histogram(WAIT_S)
        self.first_item = Histogram(FIRST_S)
        self.gap = Histogram(GAP_S)
        self.duration = Histogram(CALL_S)


class Recorder(Observer):
    """Counts for one app.

    Names come from what the app says it serves, and from nowhere else: what a caller makes up has no tally.

    Attributes:
        commands: By name.
        workflows: By name.
        admissions: The permits and queues of the commands.
        unserved: What was asked for and is not there; it is refused, and no more.
        loop: Seconds that the event loop took to come to something new.
    """

    def __init__(self) -> None:
        self.commands: dict[str, Tally] = {}
        self.workflows: dict[str, Tally] = {}
        self.admissions: Mapping[str, Admission] = {}
        self.loop = Histogram(WAIT_S)
        self.unserved = Tally()

    def _of(self, live: Live) -> Tally:
        start = live.start
        return self._named(start.target, is_workflow=start.workflow_id is not None)

    def _named(self, target: str, *, is_workflow: bool) -> Tally:
        return (self.workflows if is_workflow else self.commands).get(target, self.unserved)

    # -- see ``Observer`` ----------------------------------------------------------------------------

    def serves(self, commands: Mapping[str, Admission], workflows: Collection[str]) -> None:
        """Begin to count for these; what was counted stays."""
        self.admissions = commands
        self.commands = {name: self.commands.get(name) or Tally() for name in commands}
        self.workflows = {name: self.workflows.get(name) or Tally() for name in workflows}

    def refused(self, error: CallError, target: str, *, is_workflow: bool) -> None:
        """Count a refusal."""
        self._named(target, is_workflow=is_workflow).refusals[error.code.value] += 1

    def accepted(self, live: Live) -> None:
        """Count a call in."""
        self._of(live).in_flight += 1

    def started(self, live: Live, waited_s: float) -> None:
        """Count its wait for a permit."""
        self._of(live).queue.observe(waited_s)

    def first_item(self, live: Live, after_s: float) -> None:
        """Count its time to the first item."""
        self._of(live).first_item.observe(after_s)

    def released(self, live: Live, gap_s: float) -> None:
        """Count a gap."""
        self._of(live).gap.observe(gap_s)

    def cancelled(self, live: Live) -> None:
        """Count a cancel."""
        tally = self._of(live)
        tally.cancelled += 1
        tally.cancels[_cause(live)].count += 1

    def delivered(self, live: Live, after_s: float) -> None:
        """Count how long its cancel took to be felt."""
        self._of(live).cancels[_cause(live)].delivered.observe(after_s)

    def acknowledged(self, live: Live, after_s: float) -> None:
        """Count how long its code took to leave."""
        self._of(live).cancels[_cause(live)].acknowledged.observe(after_s)

    def confirmed(self, live: Live, after_s: float) -> None:
        """Count how long the engine below took to confirm its end."""
        self._of(live).cancels[_cause(live)].confirmed.observe(after_s)

    def ended(self, live: Live, total_s: float) -> None:
        """Count a call out, and how it ended."""
        tally = self._of(live)
        tally.in_flight -= 1
        tally.items += live.items()
        tally.duration.observe(total_s)
        tally.outcomes[_outcome(live.ending)] += 1
        if live.engine_report is not None and (usage := live.engine_report.usage) is not None:
            for kind, count in zip(_KINDS, (usage.prompt_tokens, usage.completion_tokens), strict=True):
                tally.tokens[kind].observe(count)

    def stuck(self, live: Live) -> None:
        """Count a call whose code does not stop."""
        self._of(live).stuck.add(live.request_id)

    def stopped(self, live: Live, after_s: float | None) -> None:
        """Count how long cancelled work took to stop."""
        if after_s is None:
            return
        tally = self._of(live)
        tally.cancelled -= 1
        tally.stuck.discard(live.request_id)
        tally.cancels[_cause(live)].stopped.observe(after_s)

    def turned(self, after_s: float) -> None:
        """Count how long the event loop took."""
        self.loop.observe(after_s)


def _cause(live: Live) -> str:
    return "" if live.cancel_reason is None else live.cancel_reason.value


def _outcome(ending: Ending | None) -> tuple[str, str]:
    """Return the status of a terminal frame, and its code or reason."""
    if ending is None or ending.state is State.COMPLETED:
        return _COMPLETED
    if ending.error is not None:
        return ending.state.label, ending.error.code.value
    return ending.state.label, "" if ending.reason is None else ending.reason.value
