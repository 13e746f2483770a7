"""One child process, from its spawn to its end.

Two sockets join it to the server.  The *link* carries calls, and pings that the child's event loop answers.
The *pulse* is echoed by a thread of its own, so that a loop which author code holds for a while can be told
from a process that is frozen or holds the interpreter lock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode, PenstockError
from penstock.protocol.session import (
    Close,
    Configure,
    End,
    Hello,
    Items,
    Message,
    Open,
    Ping,
    Progress,
)
from penstock.runtime.link import Link
from penstock.runtime.remote import RemoteCall

_log = logging.getLogger("penstock.process")

CHILD = "penstock.runtime.child"
LAST_WORDS_S = 0.5  # what a process sent before it died is still read, at most so long
LATE_BEATS = 2  # a beat that is answered within the next one is not late


@dataclass(frozen=True)
class ProcessSettings:
    """How child processes are started, watched and replaced; times in seconds.

    Raises:
        ValueError: A value is not positive.
    """

    start_s: float = 300.0  # from spawn until the project is imported, and for each `initialize`
    beat_s: float = 1.0
    frozen_s: float = 5.0  # no thread of it runs: frozen, or the interpreter lock is held
    held_s: float = 30.0  # its event loop is held
    wait_s: float = 5.0  # a call waits so long for a process that is being replaced
    close_s: float = 5.0
    backoff_s: float = 0.1  # before the first replacement; doubled from one to the next
    backoff_most_s: float = 30.0
    steady_s: float = 60.0  # a process that lived so long was not a failed replacement
    window: int = 256 * 1024  # bytes of items a call may be ahead of the server

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} is {value}; it must be more than 0")


class ProcessLost(PenstockError):
    """A child process ended, or never came up.

    Args:
        why: In a few words of ours, for everybody.
        detail: What author code said, for the log.
    """

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(f"{why}: {detail}" if detail else why)
        self.why = why


class ChildProcess:
    """Runs the calls of some commands.

    Args:
        configure: What it is to serve.
        settings: Bounds.
        tasks: Owns what runs here for it.
    """

    def __init__(self, configure: Configure, settings: ProcessSettings, tasks: TaskOwner) -> None:
        self._configure = configure
        self._settings = settings
        self._tasks = tasks
        self._name = configure.name
        self._loop = asyncio.get_running_loop()
        self._calls: dict[str, RemoteCall] = {}
        self._hello: asyncio.Future[str] = self._loop.create_future()
        self._killed: str | None = None
        self._closing = False
        self._parted = False  # its link is closed, which is the first sign of its end
        self._silence = 0  # beats since the link last said anything
        self._link = Link(self._heard, self._link_lost)
        self._pulse = _Pulse()
        self._process: asyncio.subprocess.Process | None = None
        self.patient = 0  # long steps under way, during which it may hold the interpreter lock
        self.over: asyncio.Future[str] = self._loop.create_future()  # why it ended

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group's."""
        assert self._process is not None
        return self._process.pid

    @property
    def calls(self) -> int:
        """How many calls it has."""
        return len(self._calls)

    @property
    def ending(self) -> bool:
        """Whether it has ended, or is about to: a call that is opened now would be lost."""
        return self.over.done() or self._killed is not None or self._parted

    @property
    def late(self) -> bool:
        """Whether it does not answer its beats in time; it may be frozen, or busy."""
        return max(self._silence, self._pulse.silence) > LATE_BEATS

    async def start(self) -> None:
        """Spawn it, and wait until it has imported the project.

        Raises:
            ProcessLost: It could not be spawned, ended, took too long, or cannot serve its commands.
        """
        await self._spawn()
        self._link.send(self._configure)
        await asyncio.wait(
            (self._hello, self.over), timeout=self._settings.start_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not self._hello.done() and not self.over.done():
            self.kill(f"not ready {self._settings.start_s:g} s after its start")
            await asyncio.wait((self.over,))
        if self.over.done():
            raise ProcessLost(self.over.result())
        if fault := self._hello.result():
            await self.close()
            raise ProcessLost("its project does not load", fault)
        self._tasks.start(self._beat(), name=f"{self._name}: beat")

    def call(self, opening: Open) -> RemoteCall:
        """Open a call.

        Raises:
            CallError: ``unavailable``, the process is gone; ``too_large``.
        """
        if self.over.done():
            raise self._loss(self.over.result())
        call = RemoteCall(self, opening)
        self._calls[opening.request_id] = call
        return call

    def send(self, message: Message) -> None:
        """Send a message; nobody is there to hear it once the process has ended."""
        self._link.send(message)

    def kill(self, why: str) -> None:
        """Kill it and what it started; its calls end as soon as it is gone."""
        if not self.over.done() and self._killed is None:
            self._killed = why
            _kill_group(self.pid)

    async def close(self) -> None:
        """Let it clean up and end, at most ``close_s`` seconds; then it is killed."""
        self._closing = True
        self._link.send(Close())
        await asyncio.wait((self.over,), timeout=self._settings.close_s)
        if not self.over.done():
            self.kill(f"not closed within {self._settings.close_s:g} s")
            _log.warning("%s: its process did not close within %g s", self._name, self._settings.close_s)
            await asyncio.wait((self.over,))

    async def discard(self) -> None:
        """Have it gone, in whatever state it is."""
        self._closing = True
        if self._process is not None and not self.over.done():
            self.kill("discarded")
            await asyncio.wait((self.over,))

    # -- start and end -------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        link, link_there = socket.socketpair()
        pulse, pulse_there = socket.socketpair()
        try:
            await self._loop.create_unix_connection(lambda: self._link, sock=link)
            await self._loop.create_unix_connection(lambda: self._pulse, sock=pulse)
            self._process = await _run_child(link_there.fileno(), pulse_there.fileno())
        except OSError as error:
            raise ProcessLost("cannot be spawned", str(error)) from error
        finally:
            link_there.close()
            pulse_there.close()
            if self._process is None:
                self._link.abort()
                self._pulse.abort()
                link.close()
                pulse.close()
        self._tasks.start(self._watch_exit(self._process), name=f"{self._name}: exit")

    async def _watch_exit(self, process: asyncio.subprocess.Process) -> None:
        """See the process to its end, whatever ends it."""
        code = await process.wait()
        _kill_group(process.pid)  # what it forked must not outlive it, nor hold its sockets open
        await asyncio.wait((self._link.closed,), timeout=LAST_WORDS_S)
        self._link.abort()
        self._pulse.abort()
        self._end(self._killed or _describe_exit(code))

    def _end(self, why: str) -> None:
        if not self._closing:
            _log.warning("%s: its process has ended: %s; %d calls lost", self._name, why, len(self._calls))
        calls, self._calls = self._calls, {}
        self.over.set_result(why)
        for call in calls.values():
            call.lose(self._loss(why))

    def _loss(self, why: str) -> CallError:
        return CallError(
            f"the process of {self._name} was lost ({why}); try again", ErrorCode.UNAVAILABLE, retry_after_s=1
        )

    def _link_lost(self, why: str) -> None:
        self._parted = True
        # A process that ends closes its link first; its exit says more of it than that.
        self._loop.call_later(LAST_WORDS_S, self.kill, why)

    # -- while it runs -------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        self._silence = 0
        if isinstance(message, (Items, Progress, End)):
            ended = isinstance(message, End)
            call = (self._calls.pop if ended else self._calls.get)(message.request_id, None)
            if call is not None:
                call.heard(message)
        elif isinstance(message, Hello) and not self._hello.done():
            self._hello.set_result(message.error)

    async def _beat(self) -> None:
        """Kill the process when it falls silent.

        Beats are counted, not seconds: a server whose own loop was held counts one, however long it took.
        """
        number = 0
        while not self.over.done():
            number += 1
            self._silence += 1
            self._pulse.beat()
            self._link.send(Ping(number=number))
            await asyncio.wait((self.over,), timeout=self._settings.beat_s)
            self._judge(self._pulse.silence * self._settings.beat_s, self._silence * self._settings.beat_s)

    def _judge(self, frozen_s: float, held_s: float) -> None:
        limits = self._settings
        if self.patient:
            frozen_s, held_s = (max(0.0, silent_s - limits.start_s) for silent_s in (frozen_s, held_s))
        if frozen_s >= limits.frozen_s:
            self.kill(f"frozen, or holding the interpreter lock, for {frozen_s:g} s")
        elif held_s >= limits.held_s:
            self.kill(f"its event loop was held for {held_s:g} s")


class _Pulse(asyncio.Protocol):
    """The server's end of the pulse."""

    def __init__(self) -> None:
        self.silence = 0  # beats since the last echo
        self._transport: asyncio.Transport | None = None

    def beat(self) -> None:
        """Send a byte, which is due to come back."""
        self.silence += 1
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b".")

    def abort(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self.silence = 0


async def _run_child(link: int, pulse: int) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C in the server's terminal is for the server, which drains; and the process
    # and whatever it forks can be ended together.  -P: nothing in the working directory is imported instead
    # of a standard module before the server's own path is in force.
    safe_path = ["-P"] if sys.version_info >= (3, 11) else []
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *safe_path,
        "-m",
        CHILD,
        str(link),
        str(pulse),
        str(os.getpid()),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(link, pulse),
        start_new_session=True,
    )


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        os.killpg(pid, signal.SIGKILL)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"exit code {code}, {signal.Signals(-code).name}"
    except ValueError:
        return f"exit code {code}"
