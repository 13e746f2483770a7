"""A child process: the same project, with some of its commands run here.

Started by ``penstock.runtime.process`` as ``python -m penstock.runtime.child LINK PULSE PARENT``: two
descriptors and the server's process id.  It lives exactly as long as its server.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Iterable
from functools import partial
from importlib import import_module
from typing import Any

from penstock.calls.limits import MIB, CallLimits
from penstock.calls.log_lines import set_up_logs
from penstock.calls.tasks import TaskOwner
from penstock.protocol.session import MAX_MESSAGE, Close, Configure, Hello, Message, Ping, Pong
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.app import App
from penstock.runtime.link import Link
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_parts import NO_SETTINGS, Timeouts
from penstock.runtime.runtime import Runtime
from penstock.runtime.working_side import WorkingSide

_log = logging.getLogger("penstock.child")

MAX_ITEM = MAX_MESSAGE - MIB
FOR_GOOD_S = 7 * 24 * 3600.0
# The server bounds what is kept, and decides when a cancel has failed.  Here a call is forgotten once its
# last frame has been sent, and not before.
LIMITS = CallLimits(
    in_flight=1_000_000,
    kept_per_call=2 * MAX_MESSAGE,
    kept_in_all=2**62,
    kept_for_s=FOR_GOOD_S,
    known_calls=1_000_000,
    cancel_grace_s=FOR_GOOD_S,
)


class Child:
    """Serves one link; it ends when the server says so, and dies when the server is gone."""

    def __init__(self) -> None:
        self._link = Link(self._heard, lambda _: die())
        self._tasks = TaskOwner()
        self._configured: asyncio.Future[Configure] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._app: App
        self._calls: WorkingSide

    async def serve(self, link: socket.socket) -> None:
        """Serve until the server closes."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=link)
        configure = await self._configured
        self._app = App(partial(_load, configure), limits=LIMITS)
        self._calls = WorkingSide(self._app, self._link, self._tasks, MAX_ITEM)
        self._link.send(Hello(error=await self._start(configure.commands)))
        await self._closing.wait()
        await self._app.aclose()

    async def _start(self, commands: Iterable[str]) -> str:
        """Load the project; returns what is wrong with it."""
        try:
            await self._app.start()
        except Exception as error:  # noqa: BLE001 - the top of the process: author code may raise anything
            _log.exception("the project cannot be loaded")
            return f"the project cannot be loaded there: {error}"
        missing = [name for name in commands if name not in self._app.commands]
        return f"there is no command {missing[0]!r} there" if missing else ""

    # -- what the server says ------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        if isinstance(message, Ping):
            self._link.send(Pong(number=message.number))
        elif isinstance(message, Configure):
            self._configured.set_result(message)
        elif isinstance(message, Close):
            self._closing.set()
        else:
            self._calls.heard(message)


def main() -> None:
    """Run the child process; the arguments are those of the module."""
    link, pulse, parent = map(int, sys.argv[1:])
    sys.argv[1:] = []
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        # For the server alone to act on: it drains.  A handler, as what is ignored stays so in programs that
        # author code starts.
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_echo, args=(_socket(pulse),), name="penstock-pulse", daemon=True).start()
    _run(_serve(_socket(link)))


def die() -> None:
    """End at once, with everything this process has forked."""
    os.killpg(0, signal.SIGKILL)


async def _serve(link: socket.socket) -> None:
    await Child().serve(link)


def _echo(pulse: socket.socket) -> None:
    """Answer the server's beats; when it is gone, so is this process, whatever its event loop does."""
    try:
        while beats := pulse.recv(64):
            pulse.sendall(beats)
    except OSError as error:
        _log.warning("the pulse broke: %s", error)
    die()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its server dies: also when no Python code can run here."""
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            _log.warning("PR_SET_PDEATHSIG failed: %s", os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:  # it died before that was in force
        die()


_PR_SET_PDEATHSIG = 1


def _socket(descriptor: int) -> socket.socket:
    # Handed down by number it is inheritable, and a program that author code starts would hold it open.
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _load(configure: Configure, owner: AbortCallbacks) -> Runtime:
    sys.path[:] = configure.path
    _set_up_logs(configure)
    module, _, name = configure.loader.partition(":")
    runtime: Runtime = getattr(import_module(module), name)(owner, **configure.arguments)
    runtime.manifest = _of_this_process(runtime)
    return runtime


def _of_this_process(runtime: Runtime) -> Manifest:
    """Return the manifest without what the server does: it starts up, spreads, and keeps the budgets."""
    given = runtime.manifest.commands
    settings = {}
    for name, command in runtime.commands.items():
        of_it = given.get(name, NO_SETTINGS)
        isolation = "thread" if (of_it.isolation or command.isolation) == "thread" else "inline"
        settings[name] = of_it.model_copy(update={"isolation": isolation, "timeouts": Timeouts()})
    nothing = {"startup": (), "workflows": {}, "workers": 0}
    return runtime.manifest.model_copy(update={**nothing, "commands": settings})


def _set_up_logs(configure: Configure) -> None:
    set_up_logs(as_json=configure.log_json, process=configure.name)
    for logger, level in configure.log_levels.items():
        logging.getLogger(logger).setLevel(level)


def _run(work: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)


if __name__ == "__main__":
    main()
