"""``App``: a project's commands run in this process.  The in-process ``Dispatcher``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial

import msgspec

from penstock.calls.admission import Admission
from penstock.calls.clock import Clock, SystemClock
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.observer import NOBODY, Observer
from penstock.calls.store import CallStore
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_ended
from penstock.errors import AuthoringError, CallError, ErrorCode, PenstockError
from penstock.protocol.dispatch import (
    LOCAL,
    Caller,
    CancelOutcome,
    Description,
    Health,
    Phase,
    TaskRecord,
)
from penstock.protocol.messages import CancelReason, Start
from penstock.runtime import carry
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.command import BoundCommand
from penstock.runtime.isolation import Isolation
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_fit import check_fit
from penstock.runtime.manifest_parts import Startup
from penstock.runtime.opening import Host, Opener, Served
from penstock.runtime.process import ProcessSettings
from penstock.runtime.project import ProjectSource
from penstock.runtime.runtime import Runtime, describe
from penstock.runtime.state import ProjectState
from penstock.runtime.threads import DaemonThreads, ThreadedCall
from penstock.runtime.watchdog import Watchdog
from penstock.runtime.workflow import Workflow

_log = logging.getLogger("penstock.app")

Loader = Callable[[AbortCallbacks], Runtime]


class App:
    """Serves the commands of one project; ``async with`` starts and stops it.

    Args:
        project: The runtime, or what loads it: a loader is called in a thread by ``start``, so that probes
            can be answered while a model is imported.
        manifest: Name and version to show until a loader has returned.
        limits: Bounds on calls.
        clock: Tells the time.
        source: Where another process finds the project; needed for ``isolation: process`` and for workers.
        processes: Bounds on those processes.
        observer: Is told what happens to every call.
    """

    def __init__(
        self,
        project: Runtime | Loader,
        *,
        manifest: Manifest | None = None,
        limits: CallLimits | None = None,
        clock: Clock | None = None,
        source: ProjectSource | None = None,
        processes: ProcessSettings | None = None,
        observer: Observer = NOBODY,
    ) -> None:
        self.limits = limits or CallLimits()
        self._clock = clock or SystemClock()
        self._observer = observer
        self._project = project
        self._runtime = project if isinstance(project, Runtime) else None
        self._manifest = project.manifest if isinstance(project, Runtime) else manifest or Manifest()
        self._aborts = AbortCallbacks()
        self._threads = DaemonThreads()
        self._store = CallStore(self.limits, self._clock)
        self._tasks = TaskOwner()
        self._retiring = TaskOwner()  # old states, until they are closed
        self._watchdog: Watchdog | None = None
        self._working: set[Live] = set()  # their code runs, also when they have been answered
        self._commands: Mapping[str, BoundCommand] = {}
        self._workflows: Mapping[str, Workflow] = {}
        self._admissions: dict[str, Admission] = {}
        self._state = ProjectState({}, self._retiring.start)
        settings, grace_s = processes or ProcessSettings(), self.limits.cancel_grace_s
        self._isolate = partial(Isolation, source=source, settings=settings, grace_s=grace_s)
        self._isolation = self._isolate({}, 0)
        self._opener: Opener  # there once the project is loaded; until then calls are refused
        self._status: Phase = "starting"
        self._phase = "not started"
        self._began = self._phase_began = self._clock.monotonic()

    # -- life ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> App:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Load the project and run its startup commands; what a failed start has opened is closed again.

        Raises:
            AuthoringError: The project has mistakes, or a startup command failed.
            Exception: Whatever the author's file raised while it was imported.
        """
        carry.install()
        try:
            self._install(await self._load())
            self._enter("starting", "starting processes")
            await self._isolation.start()
            for step in self._manifest.startup:
                self._enter("starting", f"startup: {step.command}")
                await self._run_startup(step)
        except BaseException:
            self._enter("unhealthy", f"failed: {self._phase}")
            await self._stop()
            raise
        if self._status == "starting":
            self._enter("healthy", "ready")

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

    async def aclose(self) -> None:
        """Cancel what is in flight, stop and close everything that was started or opened here."""
        self._enter("draining", "closing")
        await self._stop()

    async def _stop(self) -> None:
        await self._cancel_all()
        await self._tasks.settle(self.limits.cancel_grace_s)
        left = await self._tasks.aclose(self.limits.cancel_grace_s)
        if left:
            _log.warning("%d calls do not stop; their threads end with the process", left)
            self._threads.abandon()
            await self._tasks.aclose(self.limits.cancel_grace_s)
        await self._retiring.settle(self.limits.cancel_grace_s)
        await self._retiring.aclose()
        await self._isolation.aclose()
        if self._watchdog is not None:
            self._watchdog.close()
        self._store.close()
        await self._state.aclose()
        if self._runtime is not None:
            await self._runtime.aclose()
        self._threads.close()

    # -- what is served ------------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest:
        """The project's manifest."""
        return self._manifest

    @property
    def commands(self) -> tuple[str, ...]:
        """The names of the commands; none until the project is loaded."""
        return tuple(self._commands)

    # -- Dispatcher ----------------------------------------------------------------------------------

    async def open(self, start: Start, caller: Caller) -> Live:
        """See ``Dispatcher.open``."""
        try:
            return self._admit(start, caller)
        except CallError as error:
            self._observer.refused(error)
            raise

    def _admit(self, start: Start, caller: Caller) -> Live:
        if self._status != "healthy":
            raise CallError(
                f"{self._manifest.name} is {self._status} ({self._phase})",
                ErrorCode.UNAVAILABLE,
                retry_after_s=1,
            )
        return self._opener.open(start, caller)

    def accept(self, start: Start, caller: Caller, request_id: str) -> Live:
        """Open a command's call that has its request id already, as it was accepted by another process.

        Raises:
            CallError: It is refused.
        """
        return self._opener.open_command(start, caller, request_id=request_id)

    def forget(self, live: Live) -> None:
        """Forget an ended call that nobody will ask about."""
        self._store.forget(live)

    async def cancel(self, call_id: str, reason: CancelReason, caller: Caller) -> CancelOutcome:
        """See ``Dispatcher.cancel``."""
        return self.find(call_id, caller).cancel(reason)

    def find(self, call_id: str, caller: Caller) -> Live:
        """See ``Dispatcher.find``."""
        return self._store.find(call_id, caller)

    def tasks(self, caller: Caller) -> Sequence[TaskRecord]:
        """See ``Dispatcher.tasks``."""
        return [live.record() for live in self._store.of(caller)]

    async def describe(self) -> Description:
        """See ``Dispatcher.describe``."""
        return describe(self._manifest, self._commands, self._workflows)

    async def health(self) -> Health:
        """See ``Dispatcher.health``."""
        now = self._clock.monotonic()
        waits = self._status == "healthy" and not self._isolation.alive
        return Health(
            status="starting" if waits else self._status,
            name=self._manifest.name,
            version=self._manifest.version,
            uptime_s=round(now - self._began, 3),
            in_flight=len(self._store),
            phase="waiting for a worker" if waits else self._phase,
            elapsed_s=round(now - self._phase_began, 3),
            checks=self._checks(),
        )

    # -- inside --------------------------------------------------------------------------------------

    async def _load(self) -> Runtime:
        if isinstance(self._project, Runtime):
            return self._project
        self._enter("starting", "importing")
        load = self._project

        def run() -> None:
            # Kept at once: who is cancelled while the thread works never sees a result, but must close it.
            self._runtime = load(self._aborts)

        await ThreadedCall(self._threads, copy_context(), run).result()
        if self._runtime is None:
            raise PenstockError("the project's loader returned no Runtime")
        return self._runtime

    def _install(self, runtime: Runtime) -> None:
        self._manifest = runtime.manifest
        self._commands = runtime.bound_commands()
        self._workflows = check_fit(self._manifest, self._commands)
        self._isolation = self._isolate(self._commands, self._manifest.workers)
        self._state = ProjectState(self._isolation.keep(self._commands), self._retiring.start)
        here = [bound for name, bound in self._commands.items() if self._isolation.pool(name) is None]
        on_the_loop = [bound.command for bound in here if bound.on_the_loop]
        self._watchdog = Watchdog(on_the_loop, self._observer) if on_the_loop else None
        for name, bound in self._commands.items():
            self._admissions[name] = Admission(bound.concurrency, bound.queue, name, self._clock.monotonic)
        self._observer.serves(self._admissions, self._workflows)
        self._opener = Opener(self._host(), self._served())

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

    def _served(self) -> Served:
        return Served(
            self._manifest,
            self._commands,
            self._workflows,
            self._admissions,
            self._isolation,
            self._state,
            self._watchdog,
        )

    async def _run_startup(self, step: Startup) -> None:
        start = Start(command=step.command, input=msgspec.json.encode(step.input))
        try:
            live = self._opener.open_command(start, LOCAL)
        except CallError as error:
            raise AuthoringError(f"{step.command} could not start: {error.message}") from error
        await wait_ended(live)
        if (fault := live.fault) is not None:
            raise AuthoringError(f"{step.command} did not complete: {fault}")

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

    def _checks(self) -> dict[str, str]:
        stuck = sum(live.stuck for live in self._working)
        return {**self._isolation.checks(), **({"stuck": str(stuck)} if stuck else {})}

    def _enter(self, status: Phase, phase: str) -> None:
        self._status, self._phase, self._phase_began = status, phase, self._clock.monotonic()
