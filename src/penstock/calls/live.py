"""One live call: its log, what cuts it short, and who reads it.

All of it belongs to one event loop; code in threads comes in through that loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.calls.budgets import NO_BUDGETS, Budgets, BudgetWatch
from penstock.calls.clock import Clock, Timer
from penstock.calls.inputs import InputStream
from penstock.calls.limits import CallLimits
from penstock.calls.observer import NOBODY, Observer
from penstock.calls.reader import Readers, WindowedReader
from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import CallLog, Ending, State
from penstock.protocol.dispatch import Caller, CancelOutcome, TaskRecord
from penstock.protocol.events import EventMetrics
from penstock.protocol.messages import (
    CancelReason,
    CancelTimes,
    FrameWriter,
    Note,
    OnDisconnect,
    Start,
    decode_frame,
    encode_metrics,
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
        self.request_id = request_id
        self.task_id = start.task_id or request_id
        self.accepted_at = clock.wall()
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.stuck = False
        self.inputs: InputStream | None = None  # of a command that takes a stream
        self.cancel_reason: CancelReason | None = None
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
        self._cancel_requested = 0.0
        self._cut_at: float | None = None
        self._cancel_delivered: float | None = None
        self._cancel_confirmed: float | None = None
        self._notes = 0
        self._engine_metrics: Mapping[str, Any] = {}
        self._on_cut: tuple[Callable[[CancelReason], None], ...] = ()
        self._on_end: tuple[Callable[[Live], None], ...] = ()
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
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._clock.monotonic())

    def reader(self, after: int = -1) -> WindowedReader:
        """See ``LiveCall.reader``."""
        return self.readers.reader(after)

    def send(self, item: bytes) -> None:
        """See ``LiveCall.send``."""
        self._open_inputs().send(item)

    def end_input(self) -> None:
        """See ``LiveCall.end_input``."""
        self._open_inputs().end()

    def _open_inputs(self) -> InputStream:
        if self.inputs is None:
            raise CallError(f"{self.start.target} takes no input stream", ErrorCode.INVALID_ARGUMENT)
        if self.log.ending is not None:
            raise CallError(f"call {self.task_id} has ended", ErrorCode.FAILED_PRECONDITION)
        return self.inputs

    def record(self) -> TaskRecord:
        """Return what is known of this call."""
        ending = self.log.ending
        error = ending.error if ending else None
        return TaskRecord(
            task_id=self.task_id,
            request_id=self.request_id,
            command=self.start.command,
            workflow_id=self.start.workflow_id,
            status=self.state.label,
            accepted_at=round(self.accepted_at, 3),
            started_at=_to_ms(self.started_at),
            finished_at=_to_ms(self.finished_at),
            next_seq=self.log.next_seq,
            first_seq=self.log.first_seq,
            result=self._result(),
            error=error.message if error else None,
            code=error.code.value if error else None,
            reason=ending.reason.value if ending and ending.reason else None,
            cancel=self._cancel_record(),
            metrics=self.metrics() if ending else None,
        )

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
        return {**own, **self._engine_metrics}

    # -- for the executor ----------------------------------------------------------------------------

    def wall(self) -> float:
        """Unix seconds, of the clock this call lives by."""
        return self._clock.wall()

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

    def report_metrics(self, metrics: EventMetrics) -> None:
        """Put an engine's measurements into the terminal frame; the last report counts."""
        self._engine_metrics = encode_metrics(metrics)

    def on_cut(self, cut: Callable[[CancelReason], None]) -> None:
        """Call ``cut`` when the call is cancelled; at once if it has been."""
        if self.cancel_reason is None:
            self._on_cut += (cut,)
        else:
            cut(self.cancel_reason)

    def on_end(self, ended: Callable[[Live], None]) -> None:
        """Call ``ended`` when the terminal frame is in the log."""
        self._on_end += (ended,)

    def mark_delivered(self) -> None:
        """Say that the author's code has felt the cancel."""
        if self._cancel_delivered is None:
            self._cancel_delivered = self._clock.wall()
            self._observer.delivered(self, self._since_cancel() or 0.0)

    def mark_confirmed(self) -> None:
        """Say that the engine below has confirmed the end of the cancelled work."""
        if self.cancel_reason is not None and self._cancel_confirmed is None:
            self._cancel_confirmed = self._clock.wall()

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
        """Cut the call short; the first reason stays, and from here on no other end is possible."""
        if self.log.ending is not None:
            return "already_finished"
        if self.cancel_reason is None:
            self.cancel_reason = reason
            self._cancel_requested = self._clock.wall()
            self._cut_at = self._clock.monotonic()
            self._observer.cancelled(self)
            self._later("grace", self._limits.cancel_grace_s, self._give_up)
            for cut in self._on_cut:
                cut(reason)
        return "cancelled"

    def end_cut(self) -> bool:
        """Write the terminal frame of a call that was cut short.  Returns whether this ended it."""
        reason = self.cancel_reason or CancelReason.CALLER
        now = self._clock.wall()
        if reason in (CancelReason.CALLER, CancelReason.DISCONNECT):
            times = self._cancel_times()
            return self._ended(self.log.cancel(reason, times, now))
        return self._ended(self.log.fail(self._cut_error(reason), now))

    def mark_stopped(self) -> None:
        """Say that the work of this call has really stopped."""
        if self.stuck:
            self.stuck = False
            _log.warning("call %s of %s has stopped at last", self.request_id, self.start.target)
        self._observer.stopped(self, self._since_cancel())

    def _since_cancel(self) -> float | None:
        return None if self._cut_at is None else self._clock.monotonic() - self._cut_at

    def _give_up(self) -> None:
        """Answer a cancelled call whose code does not stop; its permit stays taken until it does."""
        self.stuck = True
        self._observer.stuck(self)
        _log.warning(
            "call %s of %s still runs %g s after its cancel; it is answered, and its permit stays taken",
            self.request_id,
            self.start.target,
            self._limits.cancel_grace_s,
        )
        self.end_cut()

    def _cut_error(self, reason: CancelReason) -> CallError:
        if reason is CancelReason.DEADLINE:
            budget, limit_s = self._spent
            name = budget.replace("_", " ")
            message = f"{self.start.target} took longer than its {name} budget of {limit_s:g} s"
            details = [{"budget": budget, "limit_s": limit_s}]
            return CallError(message, ErrorCode.DEADLINE_EXCEEDED, details=details)
        what = "the server is shutting down" if reason is CancelReason.DRAIN else "the runner was lost"
        return CallError(f"{what}; try again", ErrorCode.UNAVAILABLE, retry_after_s=1)

    def _cancel_times(self) -> CancelTimes:
        return CancelTimes(round(self._cancel_requested, 3), _to_ms(self._cancel_delivered))

    def _cancel_record(self) -> Mapping[str, Any] | None:
        if self.cancel_reason is None:
            return None
        times = self._cancel_times()
        return {**msgspec.to_builtins(times), "reason": self.cancel_reason.value, "stuck": self.stuck}

    # -- inside --------------------------------------------------------------------------------------

    def _ended(self, won: bool) -> bool:
        if won:
            self.finished_at, self._finished = self._clock.wall(), self._clock.monotonic()
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
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
        grace_s = (self.start.on_disconnect or OnDisconnect()).grace_s
        if self.log.ending is not None:
            self._at_rest()
        elif grace_s is None:
            return
        elif grace_s == 0:
            self.cancel(CancelReason.DISCONNECT)
        else:
            self._later("disconnect", grace_s, self._still_gone)

    def _still_gone(self) -> None:
        if not self.readers:
            self.cancel(CancelReason.DISCONNECT)

    def _later(self, name: str, delay_s: float, callback: Callable[[], object]) -> None:
        if (former := self._timers.pop(name, None)) is not None:
            former.cancel()
        self._timers[name] = self._clock.call_later(delay_s, callback)

    def _result(self) -> msgspec.Raw | None:
        """Return the answer, or the last item of a stream, while it is kept."""
        if self.state is not State.COMPLETED:
            return None
        for seq in range(self.log.next_seq - 1, self.log.first_seq - 1, -1):
            frame = decode_frame(self.log.read(seq - 1, 1)[0])
            if frame.data is not msgspec.UNSET and frame.status != "progress":
                return msgspec.Raw(msgspec.json.encode(frame.data))
        return None


def _writer(start: Start, task_id: str, request_id: str) -> FrameWriter:
    if start.workflow_id is not None:
        return WorkflowWriter(start.workflow_id, task_id, request_id)
    return FrameWriter(start.form, start.command, task_id, request_id)


def _to_ms(moment: float | None) -> float | None:
    return None if moment is None else round(moment, 3)  # the wire shows milliseconds


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


async def wait_ended(live: Live) -> None:
    """Return once ``live`` has its terminal frame."""
    if live.ending is None:
        ended = asyncio.Event()
        live.on_end(lambda _: ended.set())
        await ended.wait()
