"""Opening calls: what is asked for is found, checked and admitted, and starts to run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from penstock.calls.admission import Admission
from penstock.calls.budgets import NO_BUDGETS, Budgets
from penstock.calls.clock import Clock
from penstock.calls.ids import new_id
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.observer import Observer
from penstock.calls.store import CallStore
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_ended
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import LOCAL, Caller
from penstock.protocol.messages import OnDisconnect, Start
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.command import BoundCommand
from penstock.runtime.context import CallContext
from penstock.runtime.executor import Executor, Work
from penstock.runtime.isolation import Run
from penstock.runtime.manifest import Manifest
from penstock.runtime.nearest import nearest
from penstock.runtime.state import CLEANUP, INITIALIZE, Hold, ProjectState
from penstock.runtime.threads import DaemonThreads
from penstock.runtime.watchdog import Watchdog
from penstock.runtime.workflow import Workflow
from penstock.runtime.workflow_run import WORKFLOW, WorkflowRun

T = TypeVar("T")


@dataclass
class Host:
    """What outlives a project that is loaded: where its calls are kept, and who runs and watches them."""

    clock: Clock
    limits: CallLimits
    observer: Observer
    threads: DaemonThreads
    store: CallStore
    tasks: TaskOwner
    aborts: AbortCallbacks
    working: set[Live]  # their code runs, also when they have been answered


class Elsewhere(Protocol):
    """The commands that run elsewhere."""

    def has(self, request_id: str) -> bool:
        """Whether a call has been handed on; abort callbacks serve it where it runs."""
        ...

    def route(self, bound: BoundCommand, live: Live, text: bytes) -> BoundCommand:
        """Return what runs a call: ``bound`` itself, or what forwards it, with its input, JSON."""
        ...

    def meets_state(self, bound: BoundCommand) -> bool:
        """Whether a command's calls take, make or drop state that is kept here."""
        ...

    async def everywhere(self, live: Live, text: bytes, run: Run) -> object:
        """Run `initialize` or `cleanup` wherever there is state."""
        ...


@dataclass(frozen=True)
class Served:
    """What is served; it may change while calls are opened."""

    manifest: Manifest
    commands: Mapping[str, BoundCommand]
    workflows: Mapping[str, Workflow]
    admissions: Mapping[str, Admission]
    isolation: Elsewhere
    state: ProjectState
    watchdog: Watchdog | None


def _find(kind: str, name: str, known: Mapping[str, T]) -> T:
    found = known.get(name)
    if found is None:
        raise CallError(f"no {kind} {name!r}; {nearest(name, known)}", ErrorCode.NOT_FOUND)
    return found


class Opener:
    """Opens the calls of a project.

    Args:
        host: Where they are kept.
        served: What may be called.
    """

    def __init__(self, host: Host, served: Served) -> None:
        self._host = host
        self._served = served
        self._executor = Executor(host.clock, host.threads, self._abort, self._left)
        # A workflow waits in the queues of its steps; what bounds the workflows is the calls in flight.
        self._workflow_runs = Admission(host.limits.in_flight, 0, "workflows", host.clock.monotonic)
        self._initialising: Live | None = None

    def open(self, start: Start, caller: Caller) -> Live:
        """Open a call of a command or workflow.

        Raises:
            CallError: It is refused.
        """
        if start.workflow_id is not None:
            return self._open_workflow(start, caller, start.workflow_id)
        self._refuse_unless_admin(start, caller)
        return self.open_command(start, caller)

    def check(self, name: str, text: bytes) -> None:
        """See whether a command would be refused the input ``text``, JSON.

        Raises:
            CallError: It would.
        """
        command = self._find_command(name)
        command.input.validate(text)
        self._refuse_without_state(command)

    def check_workflow(self, name: str, text: bytes) -> None:
        """See whether a workflow would be refused the input ``text``, JSON.

        Raises:
            CallError: It would.
        """
        self._find_workflow(name).input.validate(text)

    def open_command(
        self, start: Start, caller: Caller, *, listed: bool = True, request_id: str | None = None
    ) -> Live:
        """Open the call of a command.

        Args:
            listed: That of a workflow's step is not, as its workflow is.
            request_id: The one it has already, where another process has accepted it.

        Raises:
            CallError: It is refused.
        """
        host, served = self._host, self._served
        command = self._find_command(start.command or served.manifest.default_command)
        text = start.input
        arguments = command.input.validate(text)
        start = command.settle(start)
        self._refuse_without_state(command)
        if listed:
            host.store.check(caller, start.task_id)
        request_id = request_id or new_id()
        place = served.admissions[start.command].enter(command.need(request_id, arguments))
        try:
            if start.command == INITIALIZE:
                start = msgspec.structs.replace(start, on_disconnect=OnDisconnect(None))
            live = self._accept(start, caller, command.budgets, request_id)
            if command.input.stream is not None:
                live.inputs = command.take_stream(arguments, start)
            if listed:
                host.store.add(live)
            hold = self._hold(command, arguments, live, text)
            context = CallContext(live, asyncio.get_running_loop())
            command = served.isolation.route(command, live, text)
        except BaseException:
            place.leave()
            raise
        return self._begin(Work(live, context, command, arguments, place, hold))

    def _hold(
        self, command: BoundCommand, arguments: dict[str, object], live: Live, text: bytes
    ) -> Hold | None:
        if not self._served.isolation.meets_state(command):
            return None
        ensure = partial(self._ensure_state, command)
        everywhere = partial(self._served.isolation.everywhere, live, text)
        return Hold(self._served.state, command, arguments, ensure, everywhere)

    def _open_workflow(self, start: Start, caller: Caller, name: str) -> Live:
        host = self._host
        workflow = self._find_workflow(name)
        given = workflow.input.validate(start.input)
        host.store.check(caller, start.task_id)
        place = self._workflow_runs.enter()
        start = msgspec.structs.replace(start, command="", input=b"{}")
        live = self._accept(start, caller, NO_BUDGETS)
        host.store.add(live)
        below = msgspec.structs.replace(caller, trace_parent=live.trace_parent)
        open_step = partial(self._open_step, caller=below)
        run = WorkflowRun(workflow, given, live, open_step=open_step, tasks=host.tasks, clock=host.clock)
        context = CallContext(live, asyncio.get_running_loop())
        return self._begin(Work(live, context, WORKFLOW, {"run": run}, place, run))

    def _open_step(self, start: Start, caller: Caller) -> Live:
        self._refuse_unless_admin(start, caller)
        return self.open_command(start, caller, listed=False)

    def _refuse_unless_admin(self, start: Start, caller: Caller) -> None:
        """Refuse the makers of state to who may only call: what they do concerns everybody."""
        name = start.command or self._served.manifest.default_command
        if not caller.admin and name in (INITIALIZE, CLEANUP):
            raise CallError(f"`{name}` is for keys of the scope admin", ErrorCode.PERMISSION_DENIED)

    def _accept(self, start: Start, caller: Caller, budgets: Budgets, request_id: str | None = None) -> Live:
        host = self._host
        live = Live(
            start,
            request_id or new_id(),
            caller,
            clock=host.clock,
            limits=host.limits,
            budgets=budgets,
            observer=host.observer,
        )
        host.observer.accepted(live)
        return live

    def _begin(self, work: Work) -> Live:
        self._host.working.add(work.live)
        if self._served.watchdog is not None:
            self._served.watchdog.wake()
        self._host.tasks.start(self._executor.run(work))
        return work.live

    def _left(self, live: Live) -> None:
        self._host.working.discard(live)
        if self._served.watchdog is not None and not self._host.working:
            self._served.watchdog.rest()

    def _abort(self, work: Work) -> None:
        context, state = work.context, self._served.state
        if self._served.isolation.has(context.request_id):
            return  # its process runs the callbacks: they were registered there too, and the call is there
        of_state = work.hold.aborts if isinstance(work.hold, Hold) else state.current.aborts
        context.fire_aborts(self._host.aborts, of_state)

    def _find_command(self, name: str) -> BoundCommand:
        return _find("command", name, self._served.commands)

    def _find_workflow(self, name: str) -> Workflow:
        return _find("workflow", name, self._served.workflows)

    # -- state ---------------------------------------------------------------------------------------

    def _needs_initialize(self, command: BoundCommand) -> bool:
        state = self._served.state
        return (
            bool(command.state)
            and INITIALIZE in self._served.commands
            and not state.initialised
            and state.lacks(command)
        )

    def _refuse_without_state(self, command: BoundCommand) -> None:
        """Refuse a call that needs an initialisation which only its caller can ask for."""
        if not self._needs_initialize(command):
            return
        initialize = self._served.commands[INITIALIZE]
        needed = [p.name for p in initialize.command.parameters if p.required]
        if needed:
            raise CallError(
                f"{command.command.name} needs state: call `initialize` with {', '.join(needed)} first",
                ErrorCode.FAILED_PRECONDITION,
            )

    async def _ensure_state(self, command: BoundCommand) -> None:
        """Run `initialize` if ``command`` needs it and nobody has; those who come meanwhile wait for it."""
        if not self._needs_initialize(command):
            return
        live = self._initialising
        if live is None or live.ending is not None:
            live = self._initialising = self.open_command(Start(command=INITIALIZE), LOCAL)
        await wait_ended(live)
        if (fault := live.fault) is not None:
            raise CallError(f"{INITIALIZE} did not complete: {fault}", ErrorCode.FAILED_PRECONDITION)
