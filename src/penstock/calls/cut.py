"""The cancel of one call, as a contract that can be watched: its stages, and when each was reached."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.calls.clock import Clock
from penstock.calls.stacks import stack_of
from penstock.errors import CallError, ErrorCode
from penstock.protocol.messages import CancelReason, CancelTimes

if TYPE_CHECKING:
    from penstock.calls.live import Live
    from penstock.calls.observer import Observer

_log = logging.getLogger("penstock.calls")


class Cut:
    """What became of a cancel.  A stage that has not been reached is ``None``; all times are Unix seconds,
    and keep their order even when the machine's clock is set.

    Attributes:
        reason: What asked for it first.
        requested_at: When.
        delivered_at: The author's code felt it.
        acknowledged_at: The author's code has left.
        confirmed_at: The engine below has confirmed that its work has stopped.
        freed_at: The permit is free: nothing of the call runs any more.
        stuck: The code runs on, long after its cancel.
    """

    __slots__ = (
        "_began",
        "_clock",
        "acknowledged_at",
        "confirmed_at",
        "delivered_at",
        "freed_at",
        "reason",
        "requested_at",
        "stuck",
    )

    def __init__(self, reason: CancelReason, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self.reason = reason
        self.requested_at = clock.wall()
        self.delivered_at: float | None = None
        self.acknowledged_at: float | None = None
        self.confirmed_at: float | None = None
        self.freed_at: float | None = None
        self.stuck = False

    def since(self) -> float:
        """Return the seconds since it was asked for; from any thread."""
        return self._clock.monotonic() - self._began

    def deliver(self, live: Live, observer: Observer, after_s: float | None = None) -> None:
        """The author's code has felt it, so long after it was asked for; without ``after_s``: now."""
        if self.delivered_at is None:
            after_s = self.since() if after_s is None else after_s
            self.delivered_at = self.requested_at + after_s
            observer.delivered(live, after_s)

    def acknowledge(self, live: Live, observer: Observer) -> None:
        """The author's code has left, and so has felt it if it ever will."""
        if self.acknowledged_at is None:
            after_s = self.since()
            self.deliver(live, observer, after_s)
            self.acknowledged_at = self.requested_at + after_s
            observer.acknowledged(live, after_s)

    def confirm(self, live: Live, observer: Observer, after_s: float | None = None) -> None:
        """The engine below, which was told of it, has confirmed it; ``after_s`` as for ``deliver``."""
        if self.confirmed_at is None:
            after_s = self.since() if after_s is None else after_s
            self.deliver(live, observer, after_s)
            self.confirmed_at = self.requested_at + after_s
            observer.confirmed(live, after_s)

    def report_stuck(self, live: Live, observer: Observer, grace_s: float) -> None:
        """The code runs on, ``grace_s`` seconds after it was asked for."""
        self.stuck = True
        observer.stuck(live)
        _log.warning(
            "call %s of %s still runs %g s after its cancel; it is answered, and its permit stays taken. "
            "It is at:\n%s",
            live.request_id,
            live.start.target,
            grace_s,
            stack_of(live.work),
            extra={"request_id": live.request_id, "command": live.start.target},
        )

    def times(self) -> CancelTimes:
        """Return the stages reached so far."""
        return CancelTimes(
            round(self.requested_at, 3),
            rounded(self.delivered_at),
            rounded(self.acknowledged_at),
            rounded(self.confirmed_at),
            rounded(self.freed_at),
        )

    def error(self, target: str, budget: str, limit_s: float | None) -> CallError:
        """Return what is told where this is no cancel but a failure.

        Args:
            target: What was called.
            budget: The budget that was spent, and its size in seconds, where that is the reason.
        """
        if self.reason is CancelReason.DEADLINE:
            size = "" if limit_s is None else f" of {limit_s:g} s"  # one that another process keeps
            message = f"{target} took longer than its {budget.replace('_', ' ')} budget{size}"
            details = [{"budget": budget, "limit_s": limit_s}]
            return CallError(message, ErrorCode.DEADLINE_EXCEEDED, details=details)
        what = "the server is shutting down" if self.reason is CancelReason.DRAIN else "the runner was lost"
        return CallError(f"{what}; try again", ErrorCode.UNAVAILABLE, retry_after_s=1)

    def record(self) -> Mapping[str, Any]:
        """Return what `GET /tasks/{id}` shows."""
        return {**msgspec.to_builtins(self.times()), "reason": self.reason.value, "stuck": self.stuck}


def rounded(moment: float | None) -> float | None:
    """Return a time as the wire shows it, in milliseconds."""
    return None if moment is None else round(moment, 3)
