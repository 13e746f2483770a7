"""One live call: its log, what cuts it short, and who reads it.

All of it belongs to one event loop; code in threads comes in through that loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from penstock.calls.budgets import NO_BUDGETS, Budgets, BudgetWatch
from penstock.calls.clock import Clock, Timer
from penstock.calls.cut import Cut
from penstock.calls.inputs import Inputs
from penstock.calls.limits import CallLimits
from penstock.calls.observer import NOBODY, Observer
from penstock.calls.reader import Readers, WindowedReader
from penstock.calls.record import record_of
from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import CallLog, Ending, State
from penstock.protocol.dispatch import Caller, CancelOutcome, TaskRecord
from penstock.protocol.events import EngineReport
from penstock.protocol.messages import (
    CancelReason,
    FrameWriter,
    Note,
    OnDisconnect,
    Start,
)
from penstock.protocol.steps import WorkflowWriter

_log = logging.getLogger("penstock.calls")


class Live:
    """A call that was accepted; ``penstock.protocol.dispatch.LiveCall`` for its readers.

    Args:
        start: The request.
        request_id: 32 hex digits, never reused.
        caller: Who opened it.
        clock: Tells the time.
        limits: Bounds on its memory and its cancel.
        budgets: Bounds on its times, besides ``start.timeout_s``.
        observer: Is told what happens to it.
    """

    def __init__(
        self,
        start: Start,
        request_id: str,
        caller: Caller,
        *,
        clock: Clock,
        limits: CallLimits,
        budgets: Budgets = NO_BUDGETS,
        observer: Observer = NOBODY,
    ) -> None:
        self.start = start
        self.caller = caller
        self.trace_parent = caller.trace_parent
        """What is done for this call stands below it, in W3C's form; who traces calls puts itself there."""
        self.request_id = request_id
        self.task_id = start.task_id or request_id
        self.accepted_at = clock.wall()
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.inputs: Inputs | None = None  # of a command that takes a stream
        self.cancel_reason: CancelReason | None = None
        self.cut: Cut | None = None  # with the reason
        self.work: object = None  # what runs: a coroutine, a generator, a thread's call
        self._clock = clock
        self._limits = limits
        self._observer = observer
        self._accepted = clock.monotonic()
        self._started: float | None = None
        self._first_item: float | None = None
        self._released = 0.0
        self._finished: float | None = None
        self._deadline = None if start.timeout_s is None else self._accepted + start.timeout_s
        self._timers: dict[str, Timer] = {}
        self._notes = 0
        self.engine_report: EngineReport | None = None
        self._on_cut: tuple[Callable[[CancelReason], None], ...] = ()
        self._on_end: tuple[Callable[[Live], None], ...] = ()
        self._on_stop: tuple[Callable[[], None], ...] = ()
        self.stopped = False  # nothing of it runs any more
        self._spent: tuple[str, float | None] = ("total", start.timeout_s)
        self.log = CallLog(_writer(start, self.task_id, request_id), self.accepted_at)
        self.readers = Readers(self.log, limits.window, limits.kept_per_call, self._readers_gone)
        self._watch: BudgetWatch | None = None
        if budgets != NO_BUDGETS:
            self._watch = BudgetWatch(budgets, clock, self.log, self.readers, self.items, self._overspent)
        if start.timeout_s is not None:
            self._later("deadline", start.timeout_s, lambda: self.cancel(CancelReason.DEADLINE))

    # -- for whoever looks ---------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the call is in its life."""
        return self.log.state

    @property
    def ending(self) -> Ending | None:
        """How it ended; None while it goes on."""
        return self.log.ending

    @property
    def stuck(self) -> bool:
        """Whether its code runs on, long after its cancel."""
        return self.cut is not None and self.cut.stuck

    @property
    def fault(self) -> str | None:
        """Why it did not complete, in words; None if it did, or while it goes on."""
        ending = self.log.ending
        if ending is None or ending.state is State.COMPLETED:
            return None
        return "it was cancelled" if ending.error is None else ending.error.message

    def items(self) -> int:
        """Count the items so far."""
        return self.log.next_seq - 1 - self._notes - (self.log.ending is not None)

    def remaining(self) -> float | None:
        """Seconds left to the deadline, at least 0; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock.monotonic())

    def reader(self, after: int = -1) -> WindowedReader:
        """See ``LiveCall.reader``."""
        return self.readers.reader(after)

    def send(self, item: bytes) -> None:
        """See ``LiveCall.send``."""
        self._open_inputs().send(item)

    def end_input(self) -> None:
        """See ``LiveCall.end_input``."""
        self._open_inputs().end()

    def _open_inputs(self) -> Inputs:
        if self.inputs is None:
            raise CallError(f"{self.start.target} takes no input stream", ErrorCode.INVALID_ARGUMENT)
        if self.log.ending is not None:
            raise CallError(f"call {self.task_id} has ended", ErrorCode.FAILED_PRECONDITION)
        return self.inputs

    def record(self) -> TaskRecord:
        """Return what is known of this call."""
        return record_of(self)

    def metrics(self) -> dict[str, Any]:
        """Return the call's own times (milliseconds), then what an engine measured."""
        now = self._clock.monotonic() if self._finished is None else self._finished
        started = now if self._started is None else self._started
        own = {
            "queue_ms": _ms(started - self._accepted),
            "total_ms": _ms(now - self._accepted),
            "items": self.items(),
        }
        if self._first_item is not None:
            own["ttft_ms"] = _ms(self._first_item - self._accepted)
        return own if self.engine_report is None else {**own, **self.engine_report.fields()}

    # -- for the executor ----------------------------------------------------------------------------

    def wall(self) -> float:
        """Unix seconds, of the clock this call lives by."""
        return self._clock.wall()

    def expire(self) -> None:
        """Cut the call if its time is over: timers may be late, where the event loop was held."""
        if self._deadline is not None and not self.remaining():
            self.cancel(CancelReason.DEADLINE)
        elif self._watch is not None:
            self._watch.expire()

    def mark_started(self) -> None:
        """Say that the author's code starts now."""
        self.started_at = self._clock.wall()
        self._started = self._clock.monotonic()
        self._observer.started(self, self._started - self._accepted)
        if self._watch is not None:
            self._watch.started()

    async def breathe(self) -> None:
        """Let the event loop turn, and wait while the producer is a window ahead of its readers.

        The producer calls this after its first item, so that it leaves at once, then after every burst
        and whenever ``readers.full_at`` is reached.
        """
        now = self._clock.monotonic()
        if self._first_item is None:
            self._first_item = now
            self._observer.first_item(self, now - self._accepted)
        else:
            self._observer.released(self, now - self._released)
        self._released = now
        self.trim()
        await self.readers.room()
        if self._watch is not None:
            self._watch.released()

    def trim(self) -> None:
        """Forget the oldest frames past the kept size."""
        self.readers.trim()

    def note(self, kind: Note, about: Mapping[str, Any]) -> None:
        """Append a note, if the caller asked for notes and the call goes on."""
        if self.start.notes and self.log.ending is None:
            self._notes += 1
            self.log.note(kind, about, self._clock.wall())

    def report(self, report: EngineReport) -> None:
        """Put what an engine tells into the terminal frame; of each part the last counts."""
        self.engine_report = report.over(self.engine_report)

    def on_cut(self, cut: Callable[[CancelReason], None]) -> None:
        """Call ``cut`` when the call is cancelled; at once if it has been."""
        if self.cancel_reason is None:
            self._on_cut += (cut,)
        else:
            cut(self.cancel_reason)

    def on_end(self, ended: Callable[[Live], None]) -> None:
        """Call ``ended`` when the terminal frame is in the log."""
        self._on_end += (ended,)

    def on_stop(self, stopped: Callable[[], None]) -> None:
        """Call ``stopped`` once: when nothing of this call runs any more, at once if nothing does, or when it
        is found not to stop."""
        if self.stopped:
            stopped()
        else:
            self._on_stop += (stopped,)

    def mark_delivered(self, after_s: float | None = None) -> None:
        """Say that the author's code has felt the cancel.

        Args:
            after_s: How long after the cancel; without it: now.
        """
        if self.cut is not None:
            self.cut.deliver(self, self._observer, after_s)

    def mark_acknowledged(self) -> None:
        """Say that the author's code has left, and so has felt the cancel if it ever will."""
        if self.cut is not None:
            self.cut.acknowledge(self, self._observer)

    def mark_confirmed(self, after_s: float | None = None) -> None:
        """Say that the engine below has confirmed the end of the cancelled work, of which it was told.

        Args:
            after_s: As for ``mark_delivered``.
        """
        if self.cut is not None:
            self.cut.confirm(self, self._observer, after_s)

    def mark_stopped(self) -> None:
        """Say that nothing of this call runs any more and that its permit is free."""
        self.work = None
        self.stopped = True
        self.mark_acknowledged()
        cut = self.cut
        after_s = None if cut is None else cut.since()
        self._observer.stopped(self, after_s)
        if cut is not None and after_s is not None:
            self._cut_is_over(cut, after_s)
        self._tell_stopped()

    def _tell_stopped(self) -> None:
        told, self._on_stop = self._on_stop, ()
        for stopped in told:
            stopped()

    def _cut_is_over(self, cut: Cut, after_s: float) -> None:
        cut.freed_at = cut.requested_at + after_s
        self._drop_timer("grace")
        if cut.stuck:
            cut.stuck = False
            about = {"request_id": self.request_id, "command": self.start.target}
            _log.warning("call %s of %s has stopped at last", *about.values(), extra=about)
        self.end_cut()

    def complete(self, answer: object = None, *, has_answer: bool) -> bool:
        """End the call: it did what it was asked.  Returns whether this ended it.

        Raises:
            CallError: ``invalid_output``; the answer is not JSON.
        """
        if self.cancel_reason is not None:
            return self.end_cut()
        now = self._clock.wall()
        return self._ended(self.log.complete(answer, self.metrics(), now, has_answer=has_answer))

    def fail(self, error: CallError) -> bool:
        """End the call with an error.  Returns whether this ended it."""
        if self.cancel_reason is not None:
            return self.end_cut()
        return self._ended(self.log.fail(error, self._clock.wall()))

    # -- cancelling ----------------------------------------------------------------------------------

    def cancel(self, reason: CancelReason) -> CancelOutcome:
        """Cut the call short; the first reason stays, and from here on no other end is possible.

        Who runs it writes the end, within a turn of the event loop: it waits for nobody's clean-up.
        """
        if self.log.ending is not None:
            return "already_finished"
        if self.cancel_reason is None:
            self.cut = Cut(reason, self._clock)  # first: threads look for the reason, and then at this
            self.cancel_reason = reason
            self._observer.cancelled(self)
            self._later("grace", self._limits.cancel_grace_s, self._still_runs)
            for cut in self._on_cut:
                cut(reason)
        return "cancelled"

    def end_cut(self) -> bool:
        """Write the terminal frame of a call that was cut short.  Returns whether this ended it."""
        cut = self.cut
        if cut is None or self.log.ending is not None:
            return False
        now = self._clock.wall()
        if cut.reason in (CancelReason.CALLER, CancelReason.DISCONNECT):
            return self._ended(self.log.cancel(cut.reason, cut.times(), now))
        return self._ended(self.log.fail(cut.error(self.start.target, *self._spent), now))

    def _still_runs(self) -> None:
        """Report a cancelled call whose code does not stop; its permit stays taken until it does."""
        if self.cut is None or self.cut.freed_at is not None:
            return
        self.cut.report_stuck(self, self._observer, self._limits.cancel_grace_s)
        self.end_cut()
        self._tell_stopped()

    # -- inside --------------------------------------------------------------------------------------

    def _ended(self, won: bool) -> bool:
        if won:
            self.finished_at, self._finished = self._clock.wall(), self._clock.monotonic()
            self._drop_timer("deadline")
            self._drop_timer("disconnect")
            if self._watch is not None:
                self._watch.close()
            self._observer.ended(self, self._finished - self._accepted)
            for ended in self._on_end:
                ended(self)
            self._at_rest()
        return won

    def _at_rest(self) -> None:
        """Let go of what only a running call needs: an ended one is kept for minutes."""
        self._on_cut = self._on_end = ()
        if not self.readers:
            self.log.pack()
            self.readers.rest()

    def _overspent(self, budget: str, limit_s: float) -> None:
        if self.cancel_reason is None:
            self._spent = (budget, limit_s)
        self.cancel(CancelReason.DEADLINE)

    def _readers_gone(self) -> None:
        if self.log.ending is not None:
            self._at_rest()
            return
        grace_s = (self.start.on_disconnect or OnDisconnect()).grace_s
        if grace_s is None:
            return
        if grace_s == 0:
            self.cancel(CancelReason.DISCONNECT)
        else:
            self._later("disconnect", grace_s, self._still_gone)

    def _still_gone(self) -> None:
        if not self.readers:
            self.cancel(CancelReason.DISCONNECT)

    def _later(self, name: str, delay_s: float, callback: Callable[[], object]) -> None:
        self._drop_timer(name)
        self._timers[name] = self._clock.call_later(delay_s, callback)

    def _drop_timer(self, name: str) -> None:
        if self._timers and (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()


def _writer(start: Start, task_id: str, request_id: str) -> FrameWriter:
    if start.workflow_id is not None:
        return WorkflowWriter(start.workflow_id, task_id, request_id)
    return start.form.writer(start.command, task_id, request_id)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
