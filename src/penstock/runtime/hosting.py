"""What every dispatcher does that keeps its calls in this process: finds, drains, cancels and stops them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from penstock.calls.clock import Clock, SystemClock
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.observer import Observer
from penstock.calls.store import CallStore
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_ended
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Caller, CancelOutcome, Health, Phase, TaskRecord
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.manifest import Manifest
from penstock.runtime.opening import Host, Opener
from penstock.runtime.threads import DaemonThreads

_log = logging.getLogger("penstock.app")


class Hosting:
    """Keeps calls, from the first to the last.

    Args:
        manifest: Name and version to show.
        limits: Bounds on calls.
        clock: Tells the time.
        observer: Is told what happens to every call.
    """

    def __init__(
        self, manifest: Manifest, limits: CallLimits | None, clock: Clock | None, observer: Observer
    ) -> None:
        self.limits = limits or CallLimits()
        self._clock = clock or SystemClock()
        self._observer = observer
        self._manifest = manifest
        self._aborts = AbortCallbacks()
        self._threads = DaemonThreads()
        self._store = CallStore(self.limits, self._clock)
        self._tasks = TaskOwner()
        self._working: set[Live] = set()  # their code runs, also when they have been answered
        self._opener: Opener  # until it is there calls are refused
        self._status: Phase = "starting"
        self._phase = "not started"
        self._began = self._phase_began = self._clock.monotonic()

    @property
    def manifest(self) -> Manifest:
        """Name and version of what is served, and more."""
        return self._manifest

    # -- Dispatcher ----------------------------------------------------------------------------------

    async def open(self, start: Start, caller: Caller) -> Live:
        """See ``Dispatcher.open``."""
        try:
            return self._admit(start, caller)
        except CallError as error:
            named = start.target or self._manifest.default_command
            self._observer.refused(error, named, is_workflow=start.workflow_id is not None)
            raise

    def _admit(self, start: Start, caller: Caller) -> Live:
        if self._status != "healthy":
            raise CallError(
                f"{self._manifest.name} is {self._status} ({self._phase})",
                ErrorCode.UNAVAILABLE,
                retry_after_s=1,
            )
        return self._opener.open(start, caller)

    async def cancel(self, call_id: str, reason: CancelReason, caller: Caller) -> CancelOutcome:
        """See ``Dispatcher.cancel``."""
        return self.find(call_id, caller).cancel(reason)

    def find(self, call_id: str, caller: Caller) -> Live:
        """See ``Dispatcher.find``."""
        return self._store.find(call_id, caller)

    def tasks(self, caller: Caller) -> Sequence[TaskRecord]:
        """See ``Dispatcher.tasks``."""
        return [live.record() for live in self._store.of(caller)]

    async def health(self) -> Health:
        """See ``Dispatcher.health``."""
        now = self._clock.monotonic()
        waits_for = self._waits_for() if self._status == "healthy" else ""
        return Health(
            status="starting" if waits_for else self._status,
            name=self._manifest.name,
            version=self._manifest.version,
            uptime_s=round(now - self._began, 3),
            in_flight=len(self._store),
            phase=f"waiting for {waits_for}" if waits_for else self._phase,
            elapsed_s=round(now - self._phase_began, 3),
            checks=self._checks(),
        )

    async def drain(self) -> None:
        """Refuse new calls, and wait until those in flight have ended, at most ``limits.drain_s`` seconds;
        what is left then is cancelled."""
        self._enter("draining", "draining")
        over = asyncio.Event()
        timer = self._clock.call_later(self.limits.drain_s, over.set)
        waiting = self._tasks.start(self._until_idle(over), name="drain")
        try:
            await over.wait()
        finally:
            timer.cancel()
            waiting.cancel()
        await self._cancel_all()

    # -- for whoever extends this --------------------------------------------------------------------

    def _waits_for(self) -> str:
        """Return what is missing for calls to be run, in a few words."""
        return ""

    def _checks(self) -> Mapping[str, str]:
        """Return how the parts are."""
        stuck = sum(live.stuck for live in self._working)
        return {"stuck": str(stuck)} if stuck else {}

    def _host(self) -> Host:
        return Host(
            self._clock,
            self.limits,
            self._observer,
            self._threads,
            self._store,
            self._tasks,
            self._aborts,
            self._working,
        )

    async def _stop_calls(self) -> None:
        """Cancel every call and wait until its code has stopped, or is given up."""
        await self._cancel_all()
        await self._tasks.settle(self.limits.cancel_grace_s)
        left = await self._tasks.aclose(self.limits.cancel_grace_s)
        if left:
            _log.warning("%d calls do not stop; their threads end with the process", left)
            self._threads.abandon()
            await self._tasks.aclose(self.limits.cancel_grace_s)

    async def _until_idle(self, over: asyncio.Event) -> None:
        for live in self._store.live():
            await wait_ended(live)
        over.set()

    async def _cancel_all(self) -> None:
        calls = tuple(self._store.live())
        for live in calls:
            live.cancel(CancelReason.DRAIN)
        for live in calls:
            await wait_ended(live)

    def _enter(self, status: Phase, phase: str) -> None:
        self._status, self._phase, self._phase_began = status, phase, self._clock.monotonic()
