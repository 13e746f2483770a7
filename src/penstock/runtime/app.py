"""``App``: a project's commands run in this process.  The in-process ``Dispatcher``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial

import msgspec

from penstock.calls.admission import Admission
from penstock.calls.clock import Clock
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.observer import NOBODY, Observer
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_ended
from penstock.errors import AuthoringError, CallError, PenstockError
from penstock.protocol.dispatch import LOCAL, Caller, Description
from penstock.protocol.messages import Start
from penstock.runtime import carry
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.command import BoundCommand
from penstock.runtime.hosting import Hosting
from penstock.runtime.isolation import Isolation
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_fit import check_fit
from penstock.runtime.manifest_parts import Startup
from penstock.runtime.opening import Opener, Served
from penstock.runtime.process import ProcessSettings
from penstock.runtime.project import ProjectSource
from penstock.runtime.runtime import Runtime, describe
from penstock.runtime.state import ProjectState
from penstock.runtime.threads import ThreadedCall
from penstock.runtime.watchdog import Watchdog
from penstock.runtime.workflow import Workflow

Loader = Callable[[AbortCallbacks], Runtime]


class App(Hosting):
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
        shown = project.manifest if isinstance(project, Runtime) else manifest or Manifest()
        super().__init__(shown, limits, clock, observer)
        self._project = project
        self._runtime = project if isinstance(project, Runtime) else None
        self._retiring = TaskOwner()  # old states, until they are closed
        self._watchdog: Watchdog | None = None
        self._commands: Mapping[str, BoundCommand] = {}
        self._workflows: Mapping[str, Workflow] = {}
        self._described: Description | None = None
        self._admissions: dict[str, Admission] = {}
        self._state = ProjectState({}, self._retiring.start)
        settings, grace_s = processes or ProcessSettings(), self.limits.cancel_grace_s
        self._isolate = partial(Isolation, source=source, settings=settings, grace_s=grace_s)
        self._isolation = self._isolate({}, 0)

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

    async def aclose(self) -> None:
        """Cancel what is in flight, stop and close everything that was started or opened here."""
        self._enter("draining", "closing")
        await self._stop()

    async def _stop(self) -> None:
        await self._stop_calls()
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
    def commands(self) -> tuple[str, ...]:
        """The names of the commands; none until the project is loaded."""
        return tuple(self._commands)

    @property
    def bound(self) -> Mapping[str, BoundCommand]:
        """The commands, with what the manifest says of them; none until the project is loaded."""
        return self._commands

    @property
    def answers(self) -> bool:
        """Whether its code can run: with workers, one of them answers."""
        return self._isolation.answers

    # -- Dispatcher ----------------------------------------------------------------------------------

    def accept(self, start: Start, caller: Caller, request_id: str) -> Live:
        """Open a command's call that has its request id already, as it was accepted by another process.

        Raises:
            CallError: It is refused.
        """
        return self._opener.open_command(start, caller, request_id=request_id)

    def check(self, command: str, text: bytes) -> None:
        """See whether a call of ``command`` with the input ``text``, JSON, would be refused.

        Raises:
            CallError: It would.
        """
        self._opener.check(command, text)

    def check_workflow(self, name: str, text: bytes) -> None:
        """See whether a call of a workflow with the input ``text``, JSON, would be refused.

        Raises:
            CallError: It would.
        """
        self._opener.check_workflow(name, text)

    def forget(self, live: Live) -> None:
        """Forget an ended call that nobody will ask about."""
        self._store.forget(live)

    async def describe(self) -> Description:
        """See ``Dispatcher.describe``."""
        if self._described is None:
            self._described = describe(self._manifest, self._commands, self._workflows)
        return self._described

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
        self._described = None
        self._isolation = self._isolate(self._commands, self._manifest.workers)
        self._state = ProjectState(self._isolation.keep(self._commands), self._retiring.start)
        here = [bound for name, bound in self._commands.items() if self._isolation.pool(name) is None]
        on_the_loop = [bound.command for bound in here if bound.on_the_loop]
        self._watchdog = Watchdog(on_the_loop, self._observer) if on_the_loop else None
        for name, bound in self._commands.items():
            self._admissions[name] = Admission(bound.concurrency, bound.queue, name, self._clock.monotonic)
        self._observer.serves(self._admissions, self._workflows)
        self._opener = Opener(self._host(), self._served())

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

    def _waits_for(self) -> str:
        return "" if self._isolation.alive else "a worker"

    def _checks(self) -> Mapping[str, str]:
        return {**self._isolation.checks(), **super()._checks()}
