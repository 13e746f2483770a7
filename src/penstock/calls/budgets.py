"""Budgets of a call besides its total: how long it may wait, be silent at first, be silent in between.

All times are in seconds, and told by the call's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock.calls.clock import Clock, Timer
from penstock.calls.reader import Readers
from penstock.protocol.call import CallLog

EARLY_S = 0.001  # event loops may fire a timer this much too soon


@dataclass(frozen=True)
class Budgets:
    """Bounds on one call, in seconds; None is no bound.

    Attributes:
        queue_s: From its acceptance until its code starts.
        first_item_s: From there to its first item, or to its end if it has none.
        gap_s: From one item to the next, or to the end; time in which its readers hold it back is not
            counted.
    """

    queue_s: float | None = None
    first_item_s: float | None = None
    gap_s: float | None = None


NO_BUDGETS = Budgets()


class BudgetWatch:
    """Watches over the budgets of one call.

    Args:
        budgets: What it may spend.
        log: What it writes.
        readers: Who may hold it back.
        items: Counts the items written so far.
        overspent: Called with the name and the size of the budget that is spent.
    """

    def __init__(
        self,
        budgets: Budgets,
        clock: Clock,
        log: CallLog,
        readers: Readers,
        items: Callable[[], int],
        overspent: Callable[[str, float], None],
    ) -> None:
        self._budgets = budgets
        self._clock = clock
        self._log = log
        self._readers = readers
        self._items = items
        self._overspent = overspent
        self._accepted = clock.monotonic()
        self._seen = 0
        self._last = 0.0  # when an item came, or the readers let the producer go on
        self._timer: Timer | None = None
        self._limit("queue", budgets.queue_s)

    def expire(self) -> None:
        """Look now whether the call has waited for too long."""
        queue_s = self._budgets.queue_s
        if queue_s is not None and self._clock.monotonic() - self._accepted >= queue_s:
            self._overspent("queue", queue_s)

    def started(self) -> None:
        """Say that the call's code starts now."""
        self.close()
        self._limit("first_item", self._budgets.first_item_s)
        if self._budgets.first_item_s is not None or self._budgets.gap_s is not None:
            self._log.wake_on_append(self._appended)

    def released(self) -> None:
        """Say that the readers let the producer go on."""
        self._last = self._clock.monotonic()

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _limit(self, budget: str, limit_s: float | None) -> None:
        if limit_s is not None:
            self._timer = self._clock.call_later(limit_s, lambda: self._overspent(budget, limit_s))

    def _appended(self) -> None:
        if self._log.ending is not None:
            return
        items, gap_s = self._items(), self._budgets.gap_s
        if items > self._seen:
            self._last = self._clock.monotonic()
            if not self._seen:
                self.close()
                self._check_in(gap_s, gap_s)
            self._seen = items
        if gap_s is not None or not self._seen:
            self._log.wake_on_append(self._appended)

    def _check_in(self, delay_s: float | None, gap_s: float | None) -> None:
        if delay_s is not None and gap_s is not None:
            self._timer = self._clock.call_later(delay_s, lambda: self._check(gap_s))

    def _check(self, gap_s: float) -> None:
        """Cut the call, or look again when the gap that is open now will be too long.

        One timer serves many items: to plan a new one for each would cost more than the item itself.
        """
        if self._readers.holding:
            self.released()
        left_s = self._last + gap_s - self._clock.monotonic()
        if left_s > EARLY_S:
            self._check_in(left_s, gap_s)
        else:
            self._overspent("gap", gap_s)
