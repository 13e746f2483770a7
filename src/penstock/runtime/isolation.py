"""``isolation: process`` and ``workers: N``: commands whose calls run in child processes.

See ``penstock.runtime.forwarding`` for how a call gets there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping

from penstock.calls.live import Live
from penstock.calls.log_lines import writes_json
from penstock.errors import AuthoringError
from penstock.protocol.session import Configure
from penstock.runtime.command import BoundCommand
from penstock.runtime.forwarding import Forwarding
from penstock.runtime.pool import Pool
from penstock.runtime.process import ProcessSettings
from penstock.runtime.project import ProjectSource
from penstock.runtime.remote_state import RemoteState
from penstock.runtime.state import CLEANUP, INITIALIZE
from penstock.runtime.supervisor import Supervisor

MAKERS = (INITIALIZE, CLEANUP)  # they run wherever there is state

Run = Callable[[], Awaitable[object]]


class Elsewhere:
    """Stands for a value of the state that only child processes hold."""


class Isolation:
    """The commands of a project that run in other processes: those with ``isolation: process`` in one each,
    and with ``workers: N`` all the others in N that are alike.

    Args:
        commands: All of the project's.
        workers: How many; 0 leaves the commands that are not isolated in this process.
        source: Where a process finds the project; None if it exists in this process only.
        settings: Bounds on the processes.
        grace_s: How long a cancelled call may take to stop, in seconds.

    Raises:
        AuthoringError: A command cannot run elsewhere; the message says what to do.
    """

    def __init__(
        self,
        commands: Mapping[str, BoundCommand],
        workers: int,
        source: ProjectSource | None,
        settings: ProcessSettings,
        grace_s: float,
    ) -> None:
        self._forwarding = Forwarding(settings.window, grace_s)
        own = {name: bound for name, bound in commands.items() if bound.isolation == "process"}
        shared = _shared(commands, own) if workers else ()
        for name in (*own, *shared):
            _check(commands[name], workers, source)

        def pool(names: Iterable[str], served: tuple[str, ...]) -> Pool:
            return Pool([_configure(name, served, source) for name in names], settings, grace_s)

        self._pools = {name: pool([name], (name,)) for name in own}
        stateful = [self._pools[name] for name, bound in own.items() if bound.state]
        self._workers: Pool | None = None
        if shared:
            self._workers = pool((f"worker {n}" for n in range(1, workers + 1)), shared)
            self._pools.update(dict.fromkeys(shared, self._workers))
            stateful.append(self._workers)
        self._state = RemoteState(stateful)
        takers = [name for name, bound in commands.items() if bound.state and name not in MAKERS]
        # A model that only other processes use is not loaded into the server as well.
        self.holds_state = not stateful or any(name not in self._pools for name in takers)

    @property
    def alive(self) -> bool:
        """Whether calls can be run: with workers, one of them is there."""
        return self._workers is None or self._workers.alive

    @property
    def answers(self) -> bool:
        """Whether calls go on: with workers, one of them answers in time."""
        return self._workers is None or self._workers.answers

    def keep(self, commands: Mapping[str, BoundCommand]) -> Mapping[str, BoundCommand]:
        """Return the commands that concern the state of this process: no `cleanup` where there is none."""
        return {name: bound for name, bound in commands.items() if self.holds_state or name != CLEANUP}

    async def start(self) -> None:
        """Start the processes, all at once.

        Raises:
            AuthoringError: One of them does not come up.
        """
        starts = [supervisor.start() for supervisor in self.supervisors()]
        for result in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def aclose(self) -> None:
        """Close the processes."""
        await asyncio.gather(*(supervisor.aclose() for supervisor in self.supervisors()))

    def supervisors(self) -> list[Supervisor]:
        """Return what keeps the processes, one each."""
        return [supervisor for pool in dict.fromkeys(self._pools.values()) for supervisor in pool.supervisors]

    def checks(self) -> dict[str, str]:
        """Return how the processes are, by the names of commands and workers."""
        return {supervisor.name: supervisor.status for supervisor in self.supervisors()}

    def pool(self, command: str) -> Pool | None:
        """Return the processes of a command; None if it runs in this one."""
        return self._pools.get(command)

    def has(self, request_id: str) -> bool:
        """Whether a call has been handed to its process, whose own abort callbacks then serve it."""
        return self._forwarding.has(request_id)

    def meets_state(self, bound: BoundCommand) -> bool:
        """Whether a command's calls take, make or drop the project's state."""
        return bool(bound.state) or bound.command.name in MAKERS

    def route(self, bound: BoundCommand, live: Live, text: bytes) -> BoundCommand:
        """Return what runs a call: ``bound`` itself, or one that forwards to a process.

        Args:
            text: The input, JSON.
        """
        pool = self._pools.get(bound.command.name)
        if pool is None:
            return bound
        return self._forwarding.bind(bound, live, text, pool.take)

    # -- state ---------------------------------------------------------------------------------------

    async def everywhere(self, live: Live, text: bytes, run: Run) -> object:
        """Run `initialize` or `cleanup` wherever there is state; returns what it returned here.

        Args:
            live: Its call.
            text: Its input, JSON.
            run: Runs it in this process.
        """
        opening = self._forwarding.opening(live, text)
        if live.start.command == CLEANUP:
            await self._state.clean_up(opening)
            return await run() if self.holds_state else None
        names = await self._state.initialise(opening)
        if not self.holds_state:
            return dict.fromkeys(names, Elsewhere())
        try:
            return await run()
        except BaseException:
            await self._state.undo()
            raise


def _shared(commands: Iterable[str], own: Container[str]) -> tuple[str, ...]:
    """Return the commands that every worker has."""
    return tuple(name for name in commands if name not in own and name not in MAKERS)


def _check(bound: BoundCommand, workers: int, source: ProjectSource | None) -> None:
    """Refuse what cannot run in another process."""
    name, asked, instead = bound.command.name, "`isolation: process`", "`isolation: thread`"
    if bound.isolation != "process":
        name, asked, instead = "the project", f"`workers: {workers}`", "`workers: 0`"
    elif name in MAKERS:
        raise AuthoringError(f"{name} runs wherever state is needed; take `isolation: process` off it")
    if bound.input.stream is not None:
        raise AuthoringError(
            f"{bound.command.name} takes a stream of input, which reaches no other process; use {instead}"
        )
    if sys.platform == "win32":
        raise AuthoringError(f"{name}: {asked} needs Unix sockets; use {instead} here")
    if source is None:
        raise AuthoringError(
            f"{name}: {asked} needs a project on disk, for the process to import it too; serve "
            f"it with `penstock run FOLDER_OR_FILE`, or use {instead}"
        )


def _configure(name: str, commands: tuple[str, ...], source: ProjectSource | None) -> Configure:
    assert source is not None  # as was checked
    return Configure(
        name=name,
        loader=source.loader,
        arguments=source.arguments,
        commands=commands,
        path=tuple(sys.path),
        log_levels={logger: logging.getLogger(logger).getEffectiveLevel() for logger in ("", "penstock")},
        log_json=writes_json(),
    )
