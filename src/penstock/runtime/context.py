"""What an author's code can ask about the call it runs in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from penstock.calls import ambient
from penstock.calls.live import Live
from penstock.errors import PenstockError
from penstock.protocol.events import EngineReport, EventMetrics, EventUsage
from penstock.protocol.values import encode_value
from penstock.runtime.abort import Abortable, AbortCallbacks, CallAborts
from penstock.runtime.interrupt import CallInterrupted, raised_here, shield
from penstock.runtime.threads import tell

_log = logging.getLogger("penstock.command")


class CallContext(Abortable):
    """The call an author's function runs in; get it with ``current_call()``.

    Safe to use from threads that the function starts.
    """

    __slots__ = ("_live", "_loop")

    def __init__(self, live: Live, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(CallAborts(live.request_id))
        self._live = live
        self._loop = loop

    @property
    def request_id(self) -> str:
        """32 hex digits, never reused; the id to give to an engine."""
        return self._live.request_id

    id = request_id

    @property
    def task_id(self) -> str:
        """The caller's name for this call; the request id unless one was given."""
        return self._live.task_id

    @property
    def command(self) -> str:
        """The name of the command that runs."""
        return self._live.start.command

    @property
    def output_config(self) -> Mapping[str, Any]:
        """What the request said under ``output_config``."""
        return self._live.start.output_config

    @property
    def metadata(self) -> Mapping[str, str]:
        """What came with the request: ``x_request_id`` and ``traceparent``, where given; the latter is this
        call's own where calls are traced."""
        live = self._live
        pairs = (("x_request_id", live.caller.correlation_id), ("traceparent", live.trace_parent))
        return {name: value for name, value in pairs if value}

    @property
    def cancelled(self) -> bool:
        """Whether the call has been cancelled, by whatever."""
        return self._live.cancel_reason is not None

    def raise_if_cancelled(self) -> None:
        """Leave a sync function whose call was cancelled.

        Raises:
            CallInterrupted: It was.
        """
        reason = self._live.cancel_reason
        if reason is not None:
            self.cancel_felt()  # first, as it has a shield, at whose end an interrupt would come again
            raised_here()
            raise CallInterrupted(f"the call was cancelled ({reason.value})")

    def shield(self) -> AbstractContextManager[None]:
        """Return a context in which this thread's code is not interrupted: what a cancel would throw into it
        is raised at the end of the context.

        For commands with ``interrupt``; elsewhere it changes nothing.  It may be nested.
        """
        return shield()

    def remaining(self) -> float | None:
        """Seconds left to the deadline, at least 0; None without one."""
        return self._live.remaining()

    @property
    def deadline(self) -> float | None:
        """Unix seconds at which the call is cut; None without one."""
        left = self.remaining()
        return None if left is None else self._live.wall() + left

    def log(self, message: str, *values: object) -> None:
        """Log a line that carries this call's request id and command."""
        with shield():  # an interrupt may come between any two steps, also while a handler holds its lock
            _log.info(message, *values, extra={"request_id": self.request_id, "command": self.command})

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell the caller how far this is, from 0 to 1; sent only to callers that asked for notes.

        Raises:
            CallError: ``invalid_output``; that is no JSON.
        """
        about = {"fraction": fraction, "message": message}
        encode_value(about)  # here, where the author sees it, and not later on the event loop
        if _on(self._loop):
            self._live.note("progress", about)  # in its place among the items
        else:
            with shield():
                self._loop.call_soon_threadsafe(self._live.note, "progress", about)

    def on_abort(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(request_id)`` in a thread of its own if this one call is cancelled; at once if
        it has been."""
        with shield():
            self._aborts.add(callback)

    def fire_aborts(self, *owners: AbortCallbacks) -> None:
        """Run what ``on_abort`` registered, and the callbacks of ``owners``; once, for a call that is cut."""
        self._aborts.fire(owners)

    def report_metrics(self, metrics: EventMetrics) -> None:
        """Put an engine's measurements into the call's terminal frame."""
        self._live.report(EngineReport(metrics=metrics))

    def report_usage(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> None:
        """Put counts of tokens into the call's terminal frame; OpenAI-compatible answers show them too."""
        usage = EventUsage(
            prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, cached_tokens=cached_tokens
        )
        self._live.report(EngineReport(usage=usage))

    def report(self, report: EngineReport) -> None:
        """See ``AmbientCall.report``."""
        self._live.report(report)

    def upstream_confirmed(self) -> None:
        """Say that the engine has confirmed the end of cancelled work."""
        self._reached(self._live.mark_confirmed)

    def cancel_felt(self) -> None:
        """Say that the code of this call has felt its cancel."""
        self._reached(self._live.mark_delivered)

    def _reached(self, mark: Callable[[float], None]) -> None:
        """Mark a stage of the cancel as reached now, on the call's own loop: who watches is told there."""
        if (cut := self._live.cut) is None:
            return
        if _on(self._loop):
            mark(cut.since())
        else:
            with shield():
                tell(self._loop, partial(mark, cut.since()))


def _on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def current_call() -> CallContext:
    """Return the call this code runs in.

    Raises:
        PenstockError: Outside of a command.
    """
    call = ambient.current.get()
    if not isinstance(call, CallContext):
        raise PenstockError("current_call() works inside a running command; use get_request_id() to ask")
    return call


def get_request_id() -> str | None:
    """Return the request id of the call this code runs in, also in threads it started; None outside.

    Source: the runner protocol's request cancellation support.
    """
    call = ambient.current.get()
    return None if call is None else call.request_id
