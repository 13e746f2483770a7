"""Keeps one child process alive: a new one for each that is lost, ever later while they fail."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from math import ceil

from penstock.calls.tasks import TaskOwner
from penstock.errors import AuthoringError, CallError
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Configure, End, Open
from penstock.runtime.process import ChildProcess, ProcessLost, ProcessSettings
from penstock.runtime.state import CLEANUP, INITIALIZE

_log = logging.getLogger("penstock.process")


class Backoff:
    """How long to wait before each attempt: doubled from one to the next, up to a bound, with jitter.

    Args:
        first_s: Before the first.
        most_s: The bound.
        chance: A number from 0 to 1.
        fixed: The part of each wait that is not left to chance.
    """

    def __init__(
        self,
        first_s: float,
        most_s: float,
        chance: Callable[[], float] = random.random,
        fixed: float = 0.5,
    ) -> None:
        self._fixed = fixed
        self._first_s = first_s
        self._most_s = most_s
        self._chance = chance
        self._failures = 0

    def next_s(self) -> float:
        """Return the next wait: part of it fixed, the rest by chance, so that many do not come at once."""
        whole_s = self._whole_s()
        self._failures += 1
        return whole_s * (self._fixed + (1 - self._fixed) * self._chance())

    @property
    def now_s(self) -> int:
        """Whole seconds, at least 1, after which it is worth asking again."""
        return max(1, ceil(self._whole_s()))

    def reset(self) -> None:
        """Begin again with the first."""
        self._failures = 0

    def _whole_s(self) -> float:
        return min(self._most_s, self._first_s * 2.0 ** min(self._failures, 32))


class Supervisor:
    """Runs commands in a child process, and replaces it when it is lost.

    Args:
        configure: What its processes are to serve.
        settings: Bounds.
        grace_s: How long a cancelled call may take to stop, in seconds.
        arrived: Called whenever a process has come up.
    """

    def __init__(
        self, configure: Configure, settings: ProcessSettings, grace_s: float, arrived: Callable[[], None]
    ) -> None:
        self._configure = configure
        self._settings = settings
        self._grace_s = grace_s
        self._arrived = arrived
        self._tasks = TaskOwner()
        self._backoff = Backoff(settings.backoff_s, settings.backoff_most_s)
        self._up: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._initial: bytes | None = None
        self._status = "not started"

    @property
    def name(self) -> str:
        """What its process is called."""
        return self._configure.name

    @property
    def status(self) -> str:
        """How its process is, in a few words."""
        if self._up is not None and self._up.over.done():
            return f"respawning after {self._up.over.result()}"
        return self._status

    @property
    def process(self) -> ChildProcess | None:
        """The process, while it takes calls."""
        return None if self._up is None or self._up.ending else self._up

    @property
    def back_in_s(self) -> int:
        """Whole seconds after which it is worth asking again."""
        return self._backoff.now_s

    async def start(self) -> None:
        """Bring the first process up.

        Raises:
            AuthoringError: It does not come up, and a next one would not either.
        """
        self._status = "starting"
        try:
            process = await self._bring_up()
        except ProcessLost as error:
            self._status = f"failed: {error.why}"
            raise AuthoringError(f"{self.name} cannot run in a process of its own: {error}") from error
        self._keeper = self._tasks.start(self._keep_up(process), name=f"{self.name}: supervisor")

    async def initialise(self, opening: Open) -> End | None:
        """Run `initialize` in the process if it is there, and with the same input in each that comes.

        Returns:
            How it ended; None without a process.

        Raises:
            CallError: It failed, or the process was lost.
        """
        process = self.process
        end = None if process is None else await self._run(process, opening)
        self._initial = opening.input
        return end

    async def clean_up(self, opening: Open) -> None:
        """Run `cleanup` in the process if it is there; those that come start without state.

        Raises:
            CallError: It failed.
        """
        self._initial = None
        process = self.process
        if process is None:
            return
        try:
            await self._run(process, opening)
        except CallError:
            if not process.ending:  # a lost one has no state either
                raise

    async def restore(self, initial: bytes | None) -> None:
        """Go back to the state that ``initial`` made; to none, in a new process, without it."""
        self._initial = initial
        process = self.process
        if process is None:
            return
        if initial is None:
            process.kill("`initialize` failed elsewhere")
            return
        try:
            await self._run(process, self._own_opening(INITIALIZE, initial))
        except CallError:
            process.kill("its former state could not be restored")

    async def aclose(self) -> None:
        """Close the process."""
        self._status = "closing"
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        if self._up is not None:
            await self._up.close()
        await self._tasks.aclose()

    # -- inside --------------------------------------------------------------------------------------

    async def _bring_up(self) -> ChildProcess:
        process = ChildProcess(self._configure, self._settings, self._tasks)
        try:
            await process.start()
            await self._give_state(process)
        except CallError as error:
            await process.close()
            raise ProcessLost("`initialize` fails there", error.message) from error
        except BaseException:
            await process.discard()
            raise
        self._status = "running"
        self._up = process
        self._arrived()
        return process

    async def _give_state(self, process: ChildProcess) -> None:
        """Bring a new process to the state in force, which may change meanwhile."""
        given: bytes | None = None
        while (due := self._initial) != given:
            if due is None:
                await self._run(process, self._own_opening(CLEANUP, b"{}"))
            else:
                await self._run(process, self._own_opening(INITIALIZE, due))
            given = due

    async def _keep_up(self, process: ChildProcess) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.wait((process.over,))
            self._up = None
            if loop.time() - began >= self._settings.steady_s:
                self._backoff.reset()
            process = await self._replace(process.over.result())

    async def _replace(self, why: str) -> ChildProcess:
        while True:
            self._status = f"respawning after {why}"
            await asyncio.sleep(self._backoff.next_s())
            try:
                return await self._bring_up()
            except ProcessLost as error:
                why = error.why
                _log.warning("%s: its new process does not come up: %s", self.name, error)

    async def _run(self, process: ChildProcess, opening: Open) -> End:
        process.patient += 1  # who loads a model may hold the interpreter lock for long
        try:
            call = process.call(opening)
            try:
                while await call.take():
                    pass
            finally:
                await call.stop(CancelReason.CALLER, self._grace_s)
            return call.result()
        finally:
            process.patient -= 1

    def _own_opening(self, command: str, given: bytes) -> Open:
        request_id = secrets.token_hex(16)
        return Open(
            request_id=request_id,
            task_id=request_id,
            command=command,
            input=given,
            window=self._settings.window,
        )
