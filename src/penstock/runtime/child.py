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

import msgspec

from penstock.calls.limits import MIB, CallLimits
from penstock.calls.live import Live
from penstock.calls.tasks import TaskOwner
from penstock.calls.waiting import wait_stopped
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Batch, Caller
from penstock.protocol.events import EventMetrics
from penstock.protocol.messages import CancelReason, OnDisconnect, Start
from penstock.protocol.session import (
    MAX_MESSAGE,
    Cancel,
    Close,
    Configure,
    Credit,
    End,
    Failure,
    Hello,
    Items,
    Message,
    Open,
    Ping,
    Pong,
    Progress,
    read_object,
)
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.app import App
from penstock.runtime.link import Link
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_parts import NO_SETTINGS, Timeouts
from penstock.runtime.runtime import Runtime

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


class _Seen(msgspec.Struct):
    """What a frame of this process's own log says to the server."""

    status: str
    data: msgspec.Raw = msgspec.Raw()


_read_frame = msgspec.json.Decoder(_Seen).decode


class Outgoing:
    """Sends what one call yields, and waits when the server is a window behind.

    Args:
        link: Where to.
        live: The call.
        window: Bytes of items that may be on their way.
    """

    def __init__(self, link: Link, live: Live, window: int) -> None:
        self._link = link
        self._live = live
        self._request_id = live.request_id
        self._left = window
        self._moved = asyncio.Event()
        self._failure: CallError | None = None

    def credit(self, size: int) -> None:
        """Hear that the server has taken ``size`` bytes."""
        self._left += size
        self._moved.set()

    def cancel(self, reason: CancelReason) -> None:
        """Cut the call short; what it still yields is dropped, as the server takes no more of it."""
        self._live.cancel(reason)
        self._moved.set()

    async def run(self) -> None:
        """Send until the call has ended and its code has stopped."""
        answer = b""
        async with self._live.reader() as reader:
            async for batch in reader:
                answer = await self._send_batch(batch.lines)
                self._forget_read(batch)
        await wait_stopped(self._live, however_long=True)
        self._link.send(self._end(answer))

    async def _send_batch(self, lines: list[bytes]) -> bytes:
        """Send what the frames say; the answer is returned, for the end."""
        items: list[bytes] = []
        answer = b""
        for line in lines:
            frame = _read_frame(line)
            if frame.status == "streaming":
                items.append(bytes(frame.data))
            elif frame.status == "progress":
                await self._send_items(items)
                items = []
                self._link.send(Progress(request_id=self._request_id, about=bytes(frame.data)))
            elif frame.status == "completed":
                answer = bytes(frame.data)
        await self._send_items(items)
        return answer

    async def _send_items(self, items: list[bytes]) -> None:
        if not items or self._live.cancel_reason is not None:
            return
        size = sum(map(len, items))
        if size > MAX_ITEM:  # a batch is a window at most, unless it is one large item
            self._refuse("an item", size)
            return
        self._link.send(Items(request_id=self._request_id, items=items))
        self._left -= size
        while self._left <= 0 and self._live.cancel_reason is None:
            self._moved.clear()
            await self._moved.wait()
        await self._link.room()

    def _refuse(self, what: str, size: int) -> None:
        text = f"{what} has {size} bytes; at most {MAX_ITEM} leave a process"
        self._failure = CallError(text, ErrorCode.TOO_LARGE)
        self._live.cancel(CancelReason.CALLER)

    def _forget_read(self, batch: Batch) -> None:
        log = self._live.log
        if log.ending is None:
            log.trim(log.size - log.position(batch.first_seq + len(batch.lines) - 1))

    def _end(self, answer: bytes) -> End:
        if len(answer) > MAX_ITEM:
            self._refuse("the answer", len(answer))
        ending, reason, cut = self._live.ending, self._live.cancel_reason, self._live.cut
        error = self._failure or (None if ending is None or reason is not None else ending.error)
        if error is not None:
            answer, reason = b"", None
        return End(
            request_id=self._request_id,
            answer=answer or None,
            error=None if error is None else Failure.of(error),
            reason=reason,
            metrics=_engine_metrics(self._live),
            confirmed=cut is not None and cut.confirmed_at is not None,
        )


class Child:
    """Serves one link; it ends when the server says so, and dies when the server is gone."""

    def __init__(self) -> None:
        self._link = Link(self._heard, lambda _: die())
        self._tasks = TaskOwner()
        self._calls: dict[str, Outgoing] = {}
        self._configured: asyncio.Future[Configure] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._app: App

    async def serve(self, link: socket.socket) -> None:
        """Serve until the server closes."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=link)
        configure = await self._configured
        self._app = App(partial(_load, configure), limits=LIMITS)
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
        if isinstance(message, Open):
            self._open(message)
        elif isinstance(message, Credit):
            if (call := self._calls.get(message.request_id)) is not None:
                call.credit(message.size)
        elif isinstance(message, Cancel):
            if (call := self._calls.get(message.request_id)) is not None:
                call.cancel(message.reason)
        elif isinstance(message, Ping):
            self._link.send(Pong(number=message.number))
        elif isinstance(message, Configure):
            self._configured.set_result(message)
        elif isinstance(message, Close):
            self._closing.set()

    def _open(self, message: Open) -> None:
        request_id = message.request_id
        # Two callers may use one task id: each has a key of its own here.
        caller = Caller(
            key=request_id, correlation_id=message.correlation_id, trace_parent=message.trace_parent
        )
        try:
            live = self._app.accept(_start_of(message), caller, request_id)
        except CallError as error:
            self._link.send(End(request_id=request_id, error=Failure.of(error)))
            return
        self._calls[request_id] = Outgoing(self._link, live, message.window)
        self._tasks.start(self._run(live), name=f"send {request_id}")

    async def _run(self, live: Live) -> None:
        try:
            await self._calls[live.request_id].run()
        finally:
            del self._calls[live.request_id]
            self._app.forget(live)


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


def _engine_metrics(live: Live) -> EventMetrics | None:
    """Return what an engine reported; the call's own times have none of its required fields."""
    metrics = live.metrics()
    return msgspec.convert(metrics, EventMetrics) if "throughput_tps" in metrics else None


def _set_up_logs(configure: Configure) -> None:
    logging.basicConfig(format=f"%(asctime)s %(levelname)s [{configure.name}] %(name)s: %(message)s")
    for logger, level in configure.log_levels.items():
        logging.getLogger(logger).setLevel(level)


def _start_of(message: Open) -> Start:
    left = message.remaining_s
    return Start(
        command=message.command,
        input=message.input,
        task_id=message.task_id,
        output_config=read_object(message.output_config),
        is_stream=True,
        notes=message.notes,
        on_disconnect=OnDisconnect(None),
        timeout_s=None if left is None else max(left, 0.001),
    )


def _run(work: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)


if __name__ == "__main__":
    main()
