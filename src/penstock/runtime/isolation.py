"""``isolation: process``: a command whose calls run in a child process.

The server's executor, log, cancel and permits stay as they are: only the function of a call is replaced, by
one that forwards to the process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from penstock.calls.live import Live
from penstock.errors import AuthoringError
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import Configure, End, Open, read_object
from penstock.protocol.values import Json
from penstock.runtime.command import BoundCommand, Kind
from penstock.runtime.process import ProcessSettings
from penstock.runtime.project import ProjectSource
from penstock.runtime.remote import RemoteCall
from penstock.runtime.state import CLEANUP, INITIALIZE
from penstock.runtime.supervisor import Supervisor

OWN_CUT_S = 1.0  # a deadline passes on both sides, and here at the latest so much after there

Run = Callable[[], Awaitable[object]]


class Elsewhere:
    """Stands for a value of the state that only child processes hold."""


class Isolation:
    """The commands of a project that run in processes of their own, one each.

    Args:
        commands: All of the project's.
        source: Where a process finds the project; None if it exists in this process only.
        settings: Bounds on the processes.
        grace_s: How long a cancelled call may take to stop, in seconds.

    Raises:
        AuthoringError: A command cannot be isolated; the message says what to do.
    """

    def __init__(
        self,
        commands: Mapping[str, BoundCommand],
        source: ProjectSource | None,
        settings: ProcessSettings,
        grace_s: float,
    ) -> None:
        self._settings = settings
        self._grace_s = grace_s
        self._forwarded: set[str] = set()
        self._initial: bytes | None = None
        self._supervisors = {
            name: Supervisor(_configure(bound, source), settings, grace_s)
            for name, bound in commands.items()
            if bound.isolation == "process"
        }
        takers = [
            name for name, bound in commands.items() if bound.state and name not in (INITIALIZE, CLEANUP)
        ]
        self._stateful = [self._supervisors[name] for name in takers if name in self._supervisors]
        # A model that only isolated commands use is not loaded into the server as well.
        self.holds_state = not self._stateful or any(name not in self._supervisors for name in takers)

    def keep(self, commands: Mapping[str, BoundCommand]) -> Mapping[str, BoundCommand]:
        """Return the commands that concern the state of this process: no `cleanup` where there is none."""
        return {name: bound for name, bound in commands.items() if self.holds_state or name != CLEANUP}

    async def start(self) -> None:
        """Start the processes, all at once.

        Raises:
            AuthoringError: One of them does not come up.
        """
        starts = [supervisor.start() for supervisor in self._supervisors.values()]
        for result in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def aclose(self) -> None:
        """Close the processes."""
        await asyncio.gather(*(supervisor.aclose() for supervisor in self._supervisors.values()))

    def checks(self) -> dict[str, str]:
        """Return how the processes are, by command."""
        return {name: supervisor.status for name, supervisor in self._supervisors.items()}

    def supervisor(self, command: str) -> Supervisor:
        """Return what keeps the process of an isolated command."""
        return self._supervisors[command]

    def has(self, request_id: str) -> bool:
        """Whether a call has been handed to its process, whose own abort callbacks then serve it."""
        return request_id in self._forwarded

    def route(self, bound: BoundCommand, live: Live, text: bytes) -> BoundCommand:
        """Return what runs a call: ``bound`` itself, or one that forwards to its process.

        Args:
            text: The input, JSON.
        """
        supervisor = self._supervisors.get(bound.command.name)
        if supervisor is None:
            return bound
        forward, kind = (
            (self._stream, Kind.ASYNC_GENERATOR)
            if bound.command.streaming
            else (self._answer, Kind.AWAITABLE)
        )
        function = partial(forward, supervisor, live, text)
        return replace(bound, command=replace(bound.command, function=function, kind=kind))

    # -- calls ---------------------------------------------------------------------------------------

    async def _stream(
        self, supervisor: Supervisor, live: Live, text: bytes, /, **_: Any
    ) -> AsyncGenerator[Json, None]:
        async with self._remote(supervisor, live, text) as call:
            while ready := await call.take():
                for entry in ready:
                    if isinstance(entry, bytes):
                        yield Json(entry)
                    else:
                        live.note("progress", read_object(entry.about))
            await _conclude(live, call)

    async def _answer(self, supervisor: Supervisor, live: Live, text: bytes, /, **_: Any) -> Json:
        async with self._remote(supervisor, live, text) as call:
            while ready := await call.take():
                for entry in ready:
                    if not isinstance(entry, bytes):
                        live.note("progress", read_object(entry.about))
            end = await _conclude(live, call)
            return Json(end.answer or b"null")

    @asynccontextmanager
    async def _remote(
        self, supervisor: Supervisor, live: Live, text: bytes
    ) -> AsyncGenerator[RemoteCall, None]:
        call = await supervisor.open(self._opening(live, text))
        self._forwarded.add(live.request_id)
        try:
            yield call
        finally:
            try:
                await call.stop(live.cancel_reason or CancelReason.CALLER, self._grace_s)
            finally:
                self._forwarded.discard(live.request_id)
                if call.end is not None and call.end.metrics is not None:
                    live.report_metrics(call.end.metrics)

    def _opening(self, live: Live, text: bytes) -> Open:
        start, caller = live.start, live.caller
        return Open(
            request_id=live.request_id,
            task_id=live.task_id,
            command=start.command,
            input=text,
            output_config=msgspec.json.encode(start.output_config),
            notes=start.notes,
            window=self._settings.window,
            remaining_s=live.remaining(),
            correlation_id=caller.correlation_id,
            trace_parent=caller.trace_parent,
        )

    # -- state ---------------------------------------------------------------------------------------

    async def everywhere(self, live: Live, text: bytes, run: Run) -> object:
        """Run `initialize` or `cleanup` wherever there is state; returns what it returned here.

        Args:
            live: Its call.
            text: Its input, JSON.
            run: Runs it in this process.
        """
        if live.start.command == INITIALIZE:
            return await self._initialise(live, text, run)
        for supervisor in self._stateful:
            await supervisor.clean_up(self._opening(live, text))
        self._initial = None
        return await run() if self.holds_state else None

    async def _initialise(self, live: Live, text: bytes, run: Run) -> object:
        """Initialise the processes, then this one; when one fails, the others go back to what was there."""
        done: list[Supervisor] = []
        names: list[str] = []
        try:
            for supervisor in self._stateful:
                end = await supervisor.initialise(self._opening(live, text))
                done.append(supervisor)
                names = read_object(end.answer or b"{}").get("state", [])
            returned = await run() if self.holds_state else dict.fromkeys(names, Elsewhere())
        except BaseException:
            for supervisor in done:
                await supervisor.restore(self._initial)
            raise
        self._initial = text
        return returned


async def _conclude(live: Live, call: RemoteCall) -> End:
    """Return how a call ended well.

    Raises:
        CallError: It failed there.
        asyncio.CancelledError: It was cut there.
    """
    end = call.result()
    if end.reason is not None:
        await asyncio.sleep(OWN_CUT_S)
        live.cancel(end.reason)
        raise asyncio.CancelledError
    return end


def _configure(bound: BoundCommand, source: ProjectSource | None) -> Configure:
    name = bound.command.name
    if name in (INITIALIZE, CLEANUP):
        raise AuthoringError(f"{name} runs wherever state is needed; take `isolation: process` off it")
    if bound.input.stream is not None:
        raise AuthoringError(
            f"{name} takes a stream of input, which reaches no other process; use `isolation: thread`"
        )
    if sys.platform == "win32":
        raise AuthoringError(f"{name}: `isolation: process` needs Unix sockets; use `isolation: thread` here")
    if source is None:
        raise AuthoringError(
            f"{name}: `isolation: process` needs a project on disk, for the process to import it too; serve "
            "it with `penstock run FOLDER_OR_FILE`, or use `isolation: thread`"
        )
    return Configure(
        loader=source.loader,
        arguments=source.arguments,
        command=name,
        path=tuple(sys.path),
        log_levels={logger: logging.getLogger(logger).getEffectiveLevel() for logger in ("", "penstock")},
    )
