"""Hosts a dispatcher: one uvicorn server, from the first probe to the last terminal frame."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import uvicorn

from penstock.calls.tasks import TaskOwner
from penstock.errors import PenstockError
from penstock.protocol.dispatch import Dispatcher
from penstock.server.accepting import Server
from penstock.server.asgi import Application
from penstock.server.batching import BatchingWebSocket
from penstock.server.collector import rare_collections
from penstock.server.http_protocol import HttpProtocol
from penstock.server.meta import Exposition
from penstock.server.settings import ServerSettings
from penstock.server.tcp import buffer_little, find_vanished

_log = logging.getLogger("penstock.server")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Hosted(Dispatcher, Protocol):
    """A dispatcher with a life of its own."""

    async def start(self) -> None: ...
    async def drain(self) -> None: ...
    async def aclose(self) -> None: ...


class Host:
    """Serves ``hosted`` until it is told to stop.

    Args:
        hosted: What runs the calls; started after the socket listens, so that probes are answered while a
            model loads.
        settings: Where to listen.
        ready: Called once calls are accepted.
        exposition: What `/metrics` shows; without it there is no such route.
    """

    def __init__(
        self,
        hosted: Hosted,
        settings: ServerSettings,
        ready: Callable[[str], None] = lambda _: None,
        exposition: Exposition | None = None,
    ) -> None:
        self._hosted = hosted
        self._settings = settings
        self._ready = ready
        self._application = Application(hosted, settings, exposition=exposition)
        self._tasks = TaskOwner()
        self._stop = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._server = Server(
            uvicorn.Config(
                self._application,
                http=partial(HttpProtocol, settings=settings),  # type: ignore[arg-type]
                ws=partial(BatchingWebSocket, slow_reader_s=settings.slow_reader_s),  # type: ignore[arg-type]
                ws_max_size=settings.max_body,
                ws_ping_interval=settings.ping_s,
                ws_ping_timeout=settings.ping_s / 2,
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here asks for them, and who sends them is not known
                timeout_keep_alive=round(settings.keep_alive_s),
                timeout_graceful_shutdown=1,
            )
        )

    def stop(self) -> None:
        """Drain and stop; asked a second time, stop at once."""
        if self._stop.is_set():
            _log.warning("asked again to stop: stopping at once")
            self._server.force_exit = True
            if self._starting is not None and not self._starting.done():
                os._exit(130)  # an import runs in a thread, which nothing else can interrupt
            if self._draining is not None:
                self._draining.cancel()
        self._stop.set()

    async def serve(self) -> None:
        """Listen, start what is hosted, and serve until ``stop``.

        Raises:
            PenstockError: The address cannot be had.
            Exception: What is hosted did not start.
        """
        listeners = listen_all(self._settings)
        serving = self._tasks.start(self._server.serve(sockets=listeners), name="uvicorn")
        with self._signals():
            try:
                await self._until_stopped(" and ".join(map(address_of, listeners)))
            finally:
                await self._wind_up(serving)

    async def _until_stopped(self, address: str) -> None:
        starting = self._starting = self._tasks.start(self._hosted.start(), name="start", awaited=True)
        stopping = self._tasks.start(self._stop.wait(), name="stop")
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return
        await starting
        with rare_collections():
            self._ready(address)
            await stopping
            _log.info("stopping: new calls are refused, those in flight may finish")
            self._draining = self._tasks.start(self._hosted.drain(), name="drain")
            await asyncio.wait((self._draining,))

    async def _wind_up(self, serving: asyncio.Task[None]) -> None:
        await self._hosted.aclose()
        await self._application.close_sockets()
        self._server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await self._application.aclose()
        await self._tasks.aclose()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


DEFAULT_WS_PORT = 8765  # of the streaming mode guide, Default Server Configuration


def listen_all(settings: ServerSettings) -> list[socket.socket]:
    """Return the listening sockets; HTTP and WebSocket are served on each of them.

    Raises:
        PenstockError: An address cannot be had; the message says what to do.
    """
    listeners = [listen(settings.host, settings.port, "--port")]
    try:
        if settings.ws_port is not None:
            listeners.append(listen(settings.host, settings.ws_port, "--ws-port"))
        elif settings.port:
            listeners.append(listen(settings.host, DEFAULT_WS_PORT, "--ws-port"))
    except PenstockError as error:
        if settings.ws_port is not None:
            listeners[0].close()
            raise
        # Nobody asked for this port by name: a second server on a machine must not fail for it.
        _log.warning("%s; WebSocket is served on the HTTP port only", error)
    for listener in listeners:
        find_vanished(listener, 1.5 * settings.ping_s, settings.silent_s)
        buffer_little(listener)
    return listeners


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Return a listening socket.

    Args:
        flag: The option that chooses another port.

    Raises:
        PenstockError: The address cannot be had; the message says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it.  asyncio sets it only on sockets whose protocol number says TCP, which those
        # accepted here have not: headers and body of an answer would lie 40 ms apart.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]  # less the address, said before
        raise PenstockError(
            f"{host}:{port} cannot be listened on ({reason}); "
            f"stop what uses it, or choose another with {flag}"
        ) from error


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
