"""Keeps one command's child process alive: a new one for each that is lost, ever later while they fail."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from math import ceil

from penstock.calls.tasks import TaskOwner
from penstock.errors import AuthoringError, CallError, ErrorCode
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Configure, End, Open
from penstock.runtime.process import ChildProcess, ProcessLost, ProcessSettings
from penstock.runtime.remote import RemoteCall
from penstock.runtime.state import INITIALIZE

_log = logging.getLogger("penstock.process")


class Backoff:
    """How long to wait before each attempt: doubled from one to the next, up to a bound, with jitter.

    Args:
        first_s: Before the first.
        most_s: The bound.
        chance: A number from 0 to 1.
    """

    def __init__(self, first_s: float, most_s: float, chance: Callable[[], float] = random.random) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._chance = chance
        self._failures = 0

    def next_s(self) -> float:
        """Return the next wait: half of it fixed, half by chance, so that many do not come at once."""
        whole_s = self._whole_s()
        self._failures += 1
        return whole_s / 2 + whole_s / 2 * self._chance()

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
    """Runs one command in a child process, and replaces it when it is lost.

    Args:
        configure: What its processes are to serve.
        settings: Bounds.
        grace_s: How long a cancelled call may take to stop, in seconds.
    """

    def __init__(self, configure: Configure, settings: ProcessSettings, grace_s: float) -> None:
        self._configure = configure
        self._settings = settings
        self._grace_s = grace_s
        self._tasks = TaskOwner()
        self._backoff = Backoff(settings.backoff_s, settings.backoff_most_s)
        self._up: asyncio.Future[ChildProcess] = asyncio.get_running_loop().create_future()
        self._keeper: asyncio.Task[None] | None = None
        self._initial: bytes | None = None
        self._status = "not started"

    @property
    def command(self) -> str:
        """The command it runs."""
        return self._configure.command

    @property
    def status(self) -> str:
        """How its process is, in a few words."""
        if self._up.done() and self._up.result().over.done():
            return f"respawning after {self._up.result().over.result()}"
        return self._status

    @property
    def pid(self) -> int | None:
        """The id of the process that is up; None while there is none."""
        return self._up.result().pid if self._up.done() else None

    async def start(self) -> None:
        """Bring the first process up.

        Raises:
            AuthoringError: It does not come up, and a next one would not either.
        """
        self._status = "starting"
        try:
            await self._bring_up()
        except ProcessLost as error:
            self._status = f"failed: {error.why}"
            raise AuthoringError(f"{self.command} cannot run in a process of its own: {error}") from error
        self._keeper = self._tasks.start(self._keep_up(), name=f"{self.command}: supervisor")

    async def open(self, opening: Open) -> RemoteCall:
        """Open a call, once a process is there.

        Raises:
            CallError: ``unavailable``, none came up in time.
        """
        return (await self._running()).call(opening)

    async def initialise(self, opening: Open) -> End:
        """Run `initialize` in the process, and with the same input in each that replaces it.

        Raises:
            CallError: It failed, or the process was lost.
        """
        end = await self._run(await self._running(), opening)
        self._initial = opening.input
        return end

    async def clean_up(self, opening: Open) -> None:
        """Run `cleanup` in the process; those that replace it start without state.

        Raises:
            CallError: It failed, or the process was lost.
        """
        self._initial = None
        await self._run(await self._running(), opening)

    async def restore(self, initial: bytes | None) -> None:
        """Go back to the state that ``initial`` made; to none, in a new process, without it."""
        self._initial = initial
        if not self._up.done():
            return
        process = self._up.result()
        if initial is None:
            process.kill("`initialize` failed elsewhere")
            return
        try:
            await self._run(process, self._replay(initial))
        except CallError:
            process.kill("its former state could not be restored")

    async def aclose(self) -> None:
        """Close the process."""
        self._status = "closing"
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        if self._up.done():
            await self._up.result().close()
        await self._tasks.aclose()

    # -- inside --------------------------------------------------------------------------------------

    async def _running(self) -> ChildProcess:
        if not self._up.done():
            await asyncio.wait((self._up,), timeout=self._settings.wait_s)
        if not self._up.done():
            text = f"{self.command} has no process to run in ({self.status}); try again"
            raise CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=self._backoff.now_s)
        return self._up.result()

    async def _bring_up(self) -> None:
        process = ChildProcess(self._configure, self._settings, self._tasks)
        try:
            await process.start()
            if self._initial is not None:
                await self._run(process, self._replay(self._initial))
        except CallError as error:
            await process.close()
            raise ProcessLost("`initialize` fails there", error.message) from error
        except BaseException:
            await process.discard()
            raise
        self._status = "running"
        self._up.set_result(process)

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began, process = loop.time(), self._up.result()
            await asyncio.wait((process.over,))
            self._up = loop.create_future()
            if loop.time() - began >= self._settings.steady_s:
                self._backoff.reset()
            await self._replace(process.over.result())

    async def _replace(self, why: str) -> None:
        while not self._up.done():
            self._status = f"respawning after {why}"
            await asyncio.sleep(self._backoff.next_s())
            try:
                await self._bring_up()
            except ProcessLost as error:
                why = error.why
                _log.warning("%s: its new process does not come up: %s", self.command, error)

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

    def _replay(self, initial: bytes) -> Open:
        request_id = secrets.token_hex(16)
        return Open(
            request_id=request_id,
            task_id=request_id,
            command=INITIALIZE,
            input=initial,
            window=self._settings.window,
        )
