"""The runners that are there: which of them run what, and who waits for a place on one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from penstock.calls.admission import Admission, Need, Place
from penstock.calls.live import Live
from penstock.errors import CallError, ErrorCode
from penstock.gateway.choosing import Wanted, choose, matches
from penstock.gateway.runner import Parting, Runner
from penstock.protocol.runners import Offer

_log = logging.getLogger("penstock.gateway")


@dataclass
class Slot:
    """A place on a runner, for one call."""

    runner: Runner
    command: str
    freed: Callable[[Runner], None]
    held: bool = field(default=True, init=False)

    def release(self) -> None:
        """Give it back; further calls do nothing."""
        if self.held:
            self.held = False
            self.runner.used[self.command] -= 1
            self.runner.load -= 1
            self.freed(self.runner)


class RunnerAdmission(Admission):
    """Permits of one command: as many as the runners that are there run at once.

    Args:
        command: Its name.
        monotonic: Seconds.
        absent: What a call is refused with while no runner is expected to take it; None if one is.
    """

    def __init__(
        self, command: str, monotonic: Callable[[], float], absent: Callable[[str], CallError | None]
    ) -> None:
        super().__init__(1, 0, command, monotonic)
        self._command = command
        self._absent = absent
        self.resize(0, 0)

    def enter(self, need: Need | None = None) -> Place:
        """See ``Admission.enter``.

        Raises:
            CallError: ``unavailable``, there is no runner; ``resource_exhausted``.
        """
        refusal = self._absent(self._command)
        if refusal is not None:
            raise refusal
        return super().enter(need)


@dataclass(eq=False)
class _Waiter:
    wanted: Wanted
    slot: asyncio.Future[Slot]


class Registry:
    """Knows the runners.

    Args:
        max_runners: At once.
        resized: Told when a runner that takes no calls has one less: the others' permits are to be counted
            again.
    """

    def __init__(self, max_runners: int, resized: Callable[[Runner], None]) -> None:
        self._resized = resized
        self._max_runners = max_runners
        self._by_name: dict[str, Runner] = {}
        self._by_session: dict[str, Runner] = {}
        self._by_command: dict[str, dict[str, Runner]] = {}
        self._waiters: dict[_Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Runner]:
        return iter(tuple(self._by_name.values()))

    # -- runners -------------------------------------------------------------------------------------

    def make_room(self, name: str) -> None:
        """See that a runner of this name may come; one that is away gives way to it.

        Raises:
            CallError: ``conflict``, it is there; ``resource_exhausted``, too many are.
        """
        former = self._by_name.get(name)
        if former is not None and former.connected:
            text = f"a runner {name!r} is connected already; give this one another name"
            raise CallError(text, ErrorCode.CONFLICT)
        if former is not None:
            former.lose("another one of its name came", Parting.AWAY)
        if len(self._by_name) >= self._max_runners:
            text = f"{len(self._by_name)} runners are connected, as many as this gateway takes"
            raise CallError(text, ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=30)

    def add(self, runner: Runner) -> None:
        """Take a runner in."""
        runner.turn = min((other.turn for other in self._by_name.values()), default=0.0)
        self._by_name[runner.name] = runner
        if runner.identity.session:
            self._by_session[runner.identity.session] = runner
        for command in runner.offers:
            self._by_command.setdefault(command, {})[runner.name] = runner

    def discard(self, runner: Runner) -> None:
        """Forget a runner that is gone."""
        del self._by_name[runner.name]
        self._by_session.pop(runner.identity.session, None)
        for command in runner.offers:
            del self._by_command[command][runner.name]
            if not self._by_command[command]:
                del self._by_command[command]

    def find(self, name: str) -> Runner:
        """Return a runner by its name.

        Raises:
            CallError: ``not_found``.
        """
        runner = self._by_name.get(name)
        if runner is None:
            raise CallError(f"no runner {name[:100]!r} is known here", ErrorCode.NOT_FOUND)
        return runner

    def of_session(self, session: str) -> Runner | None:
        """Return the runner whose session this is."""
        return self._by_session.get(session)

    def offers(self) -> dict[str, Offer]:
        """Return what is offered, by command; of several runners the first counts."""
        return {name: next(iter(there.values())).offers[name] for name, there in self._by_command.items()}

    def running(self, command: str) -> list[Runner]:
        """Return the runners that offer a command, there or not."""
        return list(self._by_command.get(command, {}).values())

    # -- places --------------------------------------------------------------------------------------

    def permits(self, command: str) -> int:
        """Return how many calls of a command may run at once: as many as runners take, besides those that run
        where no more are taken."""
        return sum(
            runner.concurrency(command) if runner.takes else runner.used[command]
            for runner in self.running(command)
        )

    def absent(self, command: str) -> CallError | None:
        """Return what a call is refused with while nobody is expected to take it."""
        if any(runner.expected for runner in self.running(command)):
            return None
        text = f"no runner for {command} is connected; try again"
        return CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=5)

    def elsewhere(self, command: str, runner: Runner) -> bool:
        """Whether a runner other than this one takes calls of a command."""
        return any(other.takes for other in self.running(command) if other is not runner)

    async def slot(self, live: Live, text: bytes, not_on: Runner | None = None) -> Slot:
        """Return a place for a call, once there is one.

        Args:
            text: Its input, JSON.
            not_on: Where it must not be.

        Raises:
            CallError: ``unavailable``; no runner that may take it is expected.
        """
        wanted = Wanted(live.start.command, live.start.route, not_on, text)
        if not self._waiters and (slot := self._take(wanted)) is not None:
            return slot
        waiter = _Waiter(wanted, asyncio.get_running_loop().create_future())
        self._waiters[waiter] = None
        self.serve()
        try:
            return await waiter.slot
        except asyncio.CancelledError:
            if waiter.slot.done() and not waiter.slot.cancelled() and waiter.slot.exception() is None:
                waiter.slot.result().release()
            raise
        finally:
            self._waiters.pop(waiter, None)

    def serve(self) -> None:
        """Give places to those who wait, in the order in which they came; and tell those for whom nobody is
        expected any more."""
        for waiter in tuple(self._waiters):
            if waiter.slot.done():
                continue
            slot = self._take(waiter.wanted)
            if slot is not None:
                waiter.slot.set_result(slot)
            elif (error := self._hopeless(waiter.wanted)) is not None:
                waiter.slot.set_exception(error)

    def _take(self, wanted: Wanted) -> Slot | None:
        runner = choose(self.running(wanted.command), wanted)
        if runner is None:
            return None
        runner.used[wanted.command] += 1
        runner.load += 1
        return Slot(runner, wanted.command, self._freed)

    def _freed(self, runner: Runner) -> None:
        if not runner.takes:
            self._resized(runner)
        self.serve()

    def _hopeless(self, wanted: Wanted) -> CallError | None:
        expected = [runner for runner in self.running(wanted.command) if runner.expected]
        if any(matches(runner, wanted.route) for runner in expected if runner is not wanted.not_on):
            return None
        what = "with the labels it asks for " if expected and wanted.not_on is None else ""
        text = f"no runner {what}takes {wanted.command}; try again"
        return CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=5)
