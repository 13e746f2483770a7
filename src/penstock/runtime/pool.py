"""Several child processes that serve the same commands; a call goes to the one with the fewest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from penstock.calls.live import Live
from penstock.errors import CallError, ErrorCode
from penstock.protocol.session import Configure, Open
from penstock.runtime.process import ChildProcess, ProcessSettings
from penstock.runtime.remote import RemoteCall
from penstock.runtime.supervisor import Supervisor


class Pool:
    """Spreads calls over processes, each of which is replaced when it is lost.

    Args:
        processes: What each of them is to serve: the same commands, under a name of its own.
        settings: Bounds.
        grace_s: How long a cancelled call may take to stop, in seconds.
    """

    def __init__(self, processes: Sequence[Configure], settings: ProcessSettings, grace_s: float) -> None:
        self._settings = settings
        self._arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turn = 0
        self.supervisors = tuple(
            Supervisor(configure, settings, grace_s, self._arrived) for configure in processes
        )

    @property
    def alive(self) -> bool:
        """Whether one of its processes takes calls."""
        return any(supervisor.process is not None for supervisor in self.supervisors)

    @property
    def answers(self) -> bool:
        """Whether one of its processes is there and answers in time."""
        processes = (supervisor.process for supervisor in self.supervisors)
        return any(process is not None and not process.late for process in processes)

    def checks(self) -> dict[str, str]:
        """Return how its processes are, by name."""
        return {supervisor.name: supervisor.status for supervisor in self.supervisors}

    async def take(self, live: Live, opening: Callable[[], Open]) -> RemoteCall:
        """Open a call in the process with the fewest, once there is one; see ``forwarding.Destination``.

        Raises:
            CallError: ``unavailable``, none came up in time; ``too_large``.
        """
        await self.ready(live.start.command)
        return self._choose().call(opening())

    async def ready(self, command: str) -> None:
        """Return once a process takes calls.

        Args:
            command: Who wants to know.

        Raises:
            CallError: ``unavailable``, none came up in time.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.wait_s
        while not self.alive:
            done, _ = await asyncio.wait((self._arrival,), timeout=max(0.0, until - loop.time()))
            if not done:
                soonest = min(self.supervisors, key=lambda supervisor: supervisor.back_in_s)
                text = f"{command} has no process to run in ({soonest.status}); try again"
                raise CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=soonest.back_in_s)

    def _choose(self) -> ChildProcess:
        """Return the process to run the next call: one that answers, with the fewest calls, by turns."""
        turn = self._turn
        in_turn = (*self.supervisors[turn:], *self.supervisors[:turn])
        there = [(s, s.process) for s in in_turn]
        up = [(s, process) for s, process in there if process is not None]
        chosen, process = min(up, key=lambda pair: (pair[1].late, pair[1].calls))
        self._turn = (self.supervisors.index(chosen) + 1) % len(self.supervisors)
        return process

    def _arrived(self) -> None:
        arrival, self._arrival = self._arrival, asyncio.get_running_loop().create_future()
        arrival.set_result(None)
