"""``Hub``: the dispatcher of a gateway.  Its calls run on runners that have dialled in."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from functools import partial

import msgspec

from penstock.calls.clock import Clock
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.observer import NOBODY, Observer
from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.gateway.choosing import matches
from penstock.gateway.everywhere import CallEverywhere, prepare
from penstock.gateway.registry import Registry, RunnerAdmission
from penstock.gateway.routed import RelayedInput, RoutedCall
from penstock.gateway.runner import Parting, Runner
from penstock.gateway.runner_link import RunnerLink
from penstock.gateway.settings import GatewaySettings
from penstock.gateway.workflows import OfferedWorkflows
from penstock.protocol.dispatch import Caller, Description
from penstock.protocol.messages import CancelReason, Start
from penstock.protocol.runners import Offer, RunnerHello
from penstock.protocol.session import Open
from penstock.runtime.command import BoundCommand
from penstock.runtime.forwarding import Forwarding
from penstock.runtime.hosting import Hosting
from penstock.runtime.manifest import Manifest
from penstock.runtime.offers import OfferedInput, bind_offer, describe_offers
from penstock.runtime.opening import Opener, Served
from penstock.runtime.state import CLEANUP, INITIALIZE, ProjectState

CLOSE_S = 5.0  # how long the closing of the runners' connections may take

_log = logging.getLogger("penstock.gateway")


class Hub(Hosting):
    """Serves the commands of the runners that are there.

    Args:
        manifest: Name and version to show, and the default command if it is always the same.
        settings: How runners are treated.
        limits: Bounds on calls.
        clock: Tells the time.
        observer: Is told what happens to every call.
    """

    def __init__(
        self,
        manifest: Manifest | None = None,
        *,
        settings: GatewaySettings | None = None,
        limits: CallLimits | None = None,
        clock: Clock | None = None,
        observer: Observer = NOBODY,
    ) -> None:
        super().__init__(manifest or Manifest(name="gateway"), limits, clock, observer)
        self.settings = settings or GatewaySettings()
        self.runners = Registry(self.settings.max_runners, self._resize)
        self.links = TaskOwner()
        """Owns what writes to runners, and closes their connections."""
        self._forwarding = Forwarding(self.settings.window, self.limits.cancel_grace_s)
        self._preparing: set[str] = set()
        self._initial: bytes | None = None  # what `initialize` was given last
        self._making_state = asyncio.Lock()
        self._offers: dict[str, Offer] = {}
        self._commands: dict[str, BoundCommand] = {}
        self._admissions: dict[str, RunnerAdmission] = {}
        self._workflows = OfferedWorkflows()
        self._described: Description | None = None  # until other runners are there
        served = Served(
            self._manifest,
            self._commands,
            self._workflows.known,
            self._admissions,
            self,
            ProjectState({}, self._tasks.start),
            None,
        )
        self._opener = Opener(self._host(), served)

    # -- life ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Hub:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Take calls."""
        self._enter("healthy", "ready")

    async def aclose(self) -> None:
        """Cancel what is in flight, and close the runners' connections; they dial again."""
        self._enter("draining", "closing")
        await self._cancel_all()
        for runner in self.runners:
            if not runner.connected:
                runner.leave()  # nobody is there to say that a call has stopped
        await self._tasks.settle(self.limits.cancel_grace_s)
        for runner in self.runners:
            runner.leave()
        await self._stop_calls()
        await self.links.settle(CLOSE_S)
        await self.links.aclose()
        self._store.close()
        self._threads.close()

    # -- Dispatcher ----------------------------------------------------------------------------------

    async def open(self, start: Start, caller: Caller) -> Live:
        """See ``Dispatcher.open``; an input that is not plainly what the command takes is put to a runner."""
        if start.workflow_id is None and not start.command:
            start = msgspec.structs.replace(start, command=self.default_command)
        if self._status == "healthy":
            try:
                if start.workflow_id is not None:
                    await self._workflows.check(start.workflow_id, start.input)
                else:
                    await self._have_checked(start)
            except CallError as error:
                self._observer.refused(error, start.target, is_workflow=start.workflow_id is not None)
                raise
        return await super().open(start, caller)

    async def _have_checked(self, start: Start) -> None:
        command, text = start.command, start.input
        bound = self._commands.get(command)
        if bound is None or not isinstance(bound.input, OfferedInput) or bound.input.surely_takes(text):
            return
        bound.input.validate(text)
        able = (
            each
            for each in self.runners.running(command)
            if each.connected and each.confirmed and matches(each, start.route)
        )
        runner = next(able, None)
        if runner is not None and (refusal := await runner.check(command, text)) is not None:
            raise refusal

    async def describe(self) -> Description:
        """See ``Dispatcher.describe``: what the runners that are there offer."""
        if self._described is None:
            offers, workflows = self.runners.offers(), self._workflows.offered()
            self._described = describe_offers(self._manifest, self.default_command, offers, workflows)
        return self._described

    @property
    def default_command(self) -> str:
        """The command of calls that name none: the one that was set; else the usual one where it is offered,
        and elsewhere that of the first runner that has one."""
        usual = self._manifest.default_command
        if "default_command" in self._manifest.model_fields_set or self.runners.running(usual):
            return usual
        theirs = (runner.default_command for runner in self.runners)
        return next((name for name in theirs if name in self._commands), usual)

    def _waits_for(self) -> str:
        return "" if any(runner.connected and runner.confirmed for runner in self.runners) else "a runner"

    def _checks(self) -> Mapping[str, str]:
        return {**{runner.name: runner.status for runner in self.runners}, **super()._checks()}

    # -- runners -------------------------------------------------------------------------------------

    def admit(
        self,
        hello: RunnerHello,
        key: str = "",
        commands: frozenset[str] | None = None,
        still_welcome: Callable[[], bool] = lambda: True,
    ) -> RunnerLink:
        """Return the runner that dials in: the one it was, or a new one.

        Args:
            key: The id of the key it shows; only the same may go on with a session.
            commands: What it may offer; None is anything.
            still_welcome: Asked at every heartbeat.

        Raises:
            CallError: ``conflict``, ``permission_denied``, ``resource_exhausted``, ``unavailable`` or
                ``invalid_argument``.
        """
        names = {offer.name for offer in hello.offers} | {offer.name for offer in hello.workflows}
        self.check_welcome(names, commands)
        known = self.runners.of_session(hello.session)
        if isinstance(known, RunnerLink) and (known.name, known.identity.key) == (hello.name, key):
            return known
        session = secrets.token_hex(16)
        runner = RunnerLink(hello, session, key, self.settings, self._clock, self.links, self, still_welcome)
        self.take_in(runner)
        return runner

    def check_welcome(self, names: Set[str], allowed: frozenset[str] | None) -> None:
        """See that a runner may come which offers commands and workflows of these ``names``.

        Args:
            allowed: What its key lets it offer; None is anything.

        Raises:
            CallError: ``permission_denied``, ``resource_exhausted`` or ``unavailable``.
        """
        if self._status != "healthy":
            raise CallError(f"the gateway is {self._status}", ErrorCode.UNAVAILABLE, retry_after_s=1)
        if allowed is not None and (more := sorted(names - allowed)):
            text = f"the key of this runner does not let it offer {', '.join(more)[:200]}"
            raise CallError(text, ErrorCode.PERMISSION_DENIED)
        known = self._commands.keys() | self._workflows.known.keys()
        if len(names | known) > self.settings.max_commands:
            text = f"the gateway knows {len(known)} commands and workflows, and takes no more"
            raise CallError(text, ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=60)

    def take_in(self, runner: Runner) -> None:
        """Add a runner that is welcome.

        Raises:
            CallError: ``conflict`` or ``resource_exhausted``.
        """
        self.runners.make_room(runner.name)
        runner.prepared = self._initial is None or INITIALIZE not in runner.offers
        self.runners.add(runner)
        self._described = None
        for offer in runner.offers.values():
            self._offer(offer)
        if runner.workflows:
            self._workflows.add(runner)
            self._observer.serves(self._admissions, self._workflows.known)
        software, offered = runner.identity.software, ", ".join(runner.offers)
        _log.info("runner %s came (%r); it offers %s", runner.name, software, offered)

    def remove(self, name: str) -> None:
        """Send a runner away for good; its calls fail, or run elsewhere.

        Raises:
            CallError: ``not_found``.
        """
        self.runners.find(name).lose("it was removed", Parting.REMOVED)

    def set_draining(self, name: str, draining: bool) -> None:
        """Give a runner no more calls, or calls again; those it has go on.

        Raises:
            CallError: ``not_found``.
        """
        runner = self.runners.find(name)
        runner.draining = draining
        self.changed(runner)

    def set_weight(self, name: str, weight: float) -> None:
        """Give a runner a share of the calls, 1 being the usual one and 0 none.

        Raises:
            CallError: ``not_found``; ``invalid_argument``.
        """
        if not 0 <= weight <= 1000:
            raise CallError("weight is between 0 and 1000", ErrorCode.INVALID_ARGUMENT)
        runner = self.runners.find(name)
        runner.weight = weight
        self.changed(runner)

    def changed(self, runner: Runner) -> None:
        """See ``Watcher.changed``."""
        if not runner.prepared and runner.confirmed and runner.name not in self._preparing:
            self._preparing.add(runner.name)
            self.links.start(self._prepare(runner), name=f"preparing {runner.name}")
        if not runner.connected and any(self.runners.elsewhere(name, runner) for name in runner.offers):
            runner.strand()
        self._resize(runner)
        for other in self.runners:  # calls of those that are away may go to this one
            if runner.takes and not other.connected and not runner.offers.keys().isdisjoint(other.offers):
                other.strand()
        self.runners.serve()

    def gone(self, runner: Runner) -> None:
        """See ``Watcher.gone``."""
        self.runners.discard(runner)
        self._workflows.discard(runner)
        self._described = None
        self._resize(runner)
        self.runners.serve()
        for name in runner.offers:
            if self.runners.absent(name) is not None:
                self._give_up_queue(name)

    async def _prepare(self, runner: Runner) -> None:
        """Bring a runner to the state that is in force; where that fails, it may try again."""
        while not runner.prepared and not runner.gone:
            given = self._initial
            command = CLEANUP if given is None else INITIALIZE
            try:
                if command in runner.offers:
                    await prepare(runner, command, given or b"{}", self.settings.window)
            except CallError as error:
                _log.warning("runner %s: its %s failed: %s", runner.name, command, error.message)
                runner.lose("it is not in the state that is in force", Parting.AWAY)
            else:
                runner.prepared = given is self._initial
        self._preparing.discard(runner.name)
        if not runner.gone:
            self.changed(runner)

    def _offer(self, offer: Offer) -> None:
        if self._offers.get(offer.name) == offer:
            return
        known = offer.name in self._commands
        if not known or len(self.runners.running(offer.name)) == 1:  # else the first that offers it counts
            self._offers[offer.name] = offer
            self._commands[offer.name] = bind_offer(offer)
        if not known:
            self._admissions[offer.name] = RunnerAdmission(
                offer.name, self._clock.monotonic, self.runners.absent
            )
            self._observer.serves(self._admissions, self._workflows.known)

    def _resize(self, runner: Runner) -> None:
        for name in runner.offers:
            queues = [other.offers[name].queue for other in self.runners.running(name)]
            self._admissions[name].resize(self.runners.permits(name), max(queues, default=0))

    def _give_up_queue(self, command: str) -> None:
        """End the calls that wait for a permit: nobody is expected who would take them."""
        for live in tuple(self._working):
            if live.start.command == command and live.started_at is None:
                live.cancel(CancelReason.RUNNER_LOST)

    # -- Elsewhere -----------------------------------------------------------------------------------

    def has(self, request_id: str) -> bool:
        """See ``Elsewhere.has``: abort callbacks are the runners' affair."""
        return True

    def meets_state(self, bound: BoundCommand) -> bool:
        """See ``Elsewhere.meets_state``: state is the runners' affair."""
        return False

    def route(self, bound: BoundCommand, live: Live, text: bytes) -> BoundCommand:
        """See ``Elsewhere.route``."""
        if bound.command.name in (INITIALIZE, CLEANUP):
            return self._forwarding.bind(bound, live, text, partial(self._open_everywhere, text))
        inputs = None
        offer = self._offers[bound.command.name]
        if offer.takes_stream:
            live.inputs = inputs = RelayedInput()
            if not live.start.more_input:
                inputs.end()
        destination = partial(self._open_on_runner, text, inputs, offer.idempotent and inputs is None)
        return self._forwarding.bind(bound, live, text, destination)

    async def everywhere(self, live: Live, text: bytes, run: Callable[[], Awaitable[object]]) -> object:
        """See ``Elsewhere.everywhere``: no state is made here."""
        return await run()

    async def _open_everywhere(self, text: bytes, live: Live, opening: Callable[[], Open]) -> CallEverywhere:
        command, route = live.start.command, live.start.route
        await self._making_state.acquire()  # else the last of two would not be the same everywhere
        try:
            (await self.runners.slot(live, text)).release()  # so there is one
            runners = [runner for runner in self.runners.running(command) if runner.takes]
            if route is not None:
                runners = [runner for runner in runners if matches(runner, route)]
            given = text if command == INITIALIZE else None
            return CallEverywhere(runners, opening(), partial(self._made_state, given, route is None))
        except BaseException:
            self._making_state.release()
            raise

    def _made_state(
        self, given: bytes | None, for_all: bool, well: Sequence[Runner], everywhere: bool
    ) -> None:
        """`initialize`, or `cleanup` where nothing was given, is over on all the runners that were told.

        Args:
            for_all: It was for every runner, not only for some labels.
            well: Where it did what it should.
        """
        self._making_state.release()
        stale = set(well)
        if everywhere and for_all:
            self._initial = given
            stale = {runner for runner in self.runners if INITIALIZE in runner.offers} - stale
        elif everywhere:
            return
        for runner in stale:
            runner.prepared = False
            self.changed(runner)

    async def _open_on_runner(
        self, text: bytes, inputs: RelayedInput | None, movable: bool, live: Live, opening: Callable[[], Open]
    ) -> RoutedCall:
        find = partial(self.runners.slot, live, text)
        return RoutedCall(await find(), opening, find if movable else None, inputs)
