"""The calls that are known: the live ones, and the ended ones for as long as their logs are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from penstock.calls.clock import Clock, Timer
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import MAX_TASK_ID


class CallStore:
    """Finds calls by id for the key that opened them.

    An ended call keeps its frames for ``kept_for_s`` seconds, all of them together at most ``kept_in_all``
    bytes; after that its record stays, without frames, among the last ``known_calls``.

    Args:
        limits: The bounds named above, and ``in_flight``.
        clock: Tells the time.
    """

    def __init__(self, limits: CallLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._by_request: OrderedDict[str, Live] = OrderedDict()
        self._by_task: dict[tuple[str, str], Live] = {}
        self._live: dict[str, Live] = {}
        self._kept: OrderedDict[str, float] = OrderedDict()  # ended, with frames: when they are due to go
        self._kept_bytes = 0
        self._bare: OrderedDict[str, None] = OrderedDict()  # ended, without frames
        self._sweep: Timer | None = None

    def __len__(self) -> int:
        """Calls in flight."""
        return len(self._live)

    def live(self) -> Iterator[Live]:
        """Yield the calls in flight."""
        return iter(tuple(self._live.values()))

    def check(self, caller: Caller, task_id: str | None) -> None:
        """See whether a call named ``task_id`` may be added.

        Raises:
            CallError: ``conflict``, the name is in flight; ``resource_exhausted``, too many calls are.
        """
        if len(self._live) >= self._limits.in_flight:
            raise CallError(
                f"{len(self._live)} calls are in flight, as many as this server takes; try again later",
                ErrorCode.RESOURCE_EXHAUSTED,
                retry_after_s=1,
            )
        named = None if task_id is None else self._by_task.get((caller.key, task_id))
        if named is not None and named.ending is None:
            raise CallError(
                f"task {task_id} is in flight; cancel it, wait for it, or use another task_id",
                ErrorCode.CONFLICT,
            )

    def add(self, live: Live) -> None:
        """Keep a call that was accepted."""
        self._by_request[live.request_id] = live
        self._by_task[live.caller.key, live.task_id] = live
        self._live[live.request_id] = live
        live.on_end(self._ended)

    def find(self, call_id: str, caller: Caller) -> Live:
        """Return the call with this task id (the latest of that name) or request id.

        Task ids are names that each key gives for itself: admins find the calls of others by request id.

        Raises:
            CallError: ``not_found``: unknown, forgotten, or opened with another key.
        """
        live = self._by_task.get((caller.key, call_id)) or self._by_request.get(call_id)
        if live is None or not (caller.admin or live.caller.key == caller.key):
            raise CallError(f"no task {call_id[:MAX_TASK_ID]!r} is known here", ErrorCode.NOT_FOUND)
        return live

    def of(self, caller: Caller) -> list[Live]:
        """Return the calls this key opened, oldest first; for an admin, everybody's."""
        calls = self._by_request.values()
        return [live for live in calls if caller.admin or live.caller.key == caller.key]

    def forget(self, live: Live) -> None:
        """Forget an ended call now; one that is in flight, or not known, is left alone."""
        if self._kept.pop(live.request_id, None) is not None:
            self._kept_bytes -= live.log.kept_size
        elif live.request_id in self._bare:
            del self._bare[live.request_id]
        else:
            return
        self._forget(live.request_id)

    def close(self) -> None:
        """Stop the timer."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _ended(self, live: Live) -> None:
        del self._live[live.request_id]
        live.trim()
        self._kept[live.request_id] = self._clock.monotonic() + self._limits.kept_for_s
        self._kept_bytes += live.log.kept_size
        while self._kept_bytes > self._limits.kept_in_all or len(self._kept) > self._limits.known_calls:
            self._strip_oldest()
        while len(self._bare) + len(self._kept) > self._limits.known_calls:
            self._forget(self._bare.popitem(last=False)[0])
        self._plan_sweep()

    def _strip_oldest(self) -> None:
        request_id, _ = self._kept.popitem(last=False)
        log = self._by_request[request_id].log
        self._kept_bytes -= log.kept_size
        log.trim(0)
        self._bare[request_id] = None

    def _forget(self, request_id: str) -> None:
        live = self._by_request.pop(request_id)
        name = (live.caller.key, live.task_id)
        if self._by_task.get(name) is live:
            del self._by_task[name]

    def _plan_sweep(self) -> None:
        if self._sweep is None and self._kept:
            due = next(iter(self._kept.values()))
            self._sweep = self._clock.call_later(max(0.0, due - self._clock.monotonic()), self._run_sweep)

    def _run_sweep(self) -> None:
        self._sweep = None
        now = self._clock.monotonic()
        while self._kept and next(iter(self._kept.values())) <= now:
            self._strip_oldest()
        self._plan_sweep()
