"""Hosts a dispatcher: one uvicorn server, from the first probe to the last terminal frame."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import uvicorn

from penstock.calls.caches import CACHES
from penstock.calls.tasks import TaskOwner
from penstock.errors import PenstockError
from penstock.protocol.dispatch import Dispatcher
from penstock.server.accepting import Server
from penstock.server.asgi import Application, Extension
from penstock.server.auth import Keys
from penstock.server.batching import BatchingWebSocket
from penstock.server.collector import rare_collections
from penstock.server.descriptors import most_connections, raise_descriptor_limit
from penstock.server.door import Door
from penstock.server.http_protocol import HttpProtocol
from penstock.server.kv_publishing import KvPublishing
from penstock.server.meta import Exposition
from penstock.server.pages import Pages
from penstock.server.settings import ServerSettings, words
from penstock.server.sites import Sites
from penstock.server.tcp import buffer_little, find_vanished
from penstock.server.tls import read_certificate

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
        extension: More that is answered.

    Raises:
        PenstockError: The keys, or the certificate, cannot be read.
    """

    def __init__(
        self,
        hosted: Hosted,
        settings: ServerSettings,
        ready: Callable[[str], None] = lambda _: None,
        exposition: Exposition | None = None,
        extension: Extension | None = None,
    ) -> None:
        self._hosted = hosted
        self._settings = settings
        self._ready = ready
        self._keys = None if settings.auth_keys is None else Keys(settings.auth_keys)
        tls = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            tls = read_certificate(settings.tls_cert, settings.tls_key)
        self._sites = Sites(words(settings.allow_host), words(settings.allow_origin))
        pages = (Pages().opens,) if settings.playground else ()
        door = Door(self._sites, self._keys, *pages)
        self._services = [make(door) for make in (extension or Extension()).services]
        if settings.kv_events is not None:
            self._services.append(KvPublishing(CACHES, settings.kv_events, settings.kv_replays or ""))
        self._application = Application(
            hosted, settings, exposition=exposition, door=door, extension=extension
        )
        self._tasks = TaskOwner()
        self._stop = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._server = Server(
            uvicorn.Config(
                self._application,
                http=partial(  # type: ignore[arg-type]
                    HttpProtocol,
                    settings=settings,
                    most_connections=most_connections(settings.max_connections, raise_descriptor_limit()),
                    refused=self._application.refused,
                ),
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
            ),
            tls,
            settings.header_s,
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
            PenstockError: The address cannot be had, or others can reach it and nobody needs a key.
            Exception: What is hosted did not start.
        """
        listeners = listen_all(self._settings)
        self._sites.listen_at(listener.getsockname()[:2] for listener in listeners)
        serving = self._tasks.start(self._server.serve(sockets=listeners), name="uvicorn")
        with self._signals(), self._watched_keys():
            try:
                await self._until_stopped(" and ".join(self._address_of(listener) for listener in listeners))
            finally:
                await self._wind_up(serving)

    def _address_of(self, listener: socket.socket) -> str:
        return address_of(listener, "http" if self._settings.tls_cert is None else "https")

    async def _until_stopped(self, address: str) -> None:
        starting = self._starting = self._tasks.start(self._hosted.start(), name="start", awaited=True)
        stopping = self._tasks.start(self._stop.wait(), name="stop")
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return
        await starting
        for service in self._services:
            await service.start()
        with rare_collections():
            self._ready(address)
            await stopping
            _log.info("stopping: new calls are refused, those in flight may finish")
            for service in self._services:
                service.drain()
            self._draining = self._tasks.start(self._hosted.drain(), name="drain")
            await asyncio.wait((self._draining,))

    async def _wind_up(self, serving: asyncio.Task[None]) -> None:
        await self._hosted.aclose()
        for service in self._services:
            await service.aclose()
        await self._application.close_sockets()
        self._server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await self._application.aclose()
        await self._tasks.aclose()

    @contextlib.contextmanager
    def _watched_keys(self) -> Iterator[None]:
        """Follow the file of keys: by itself, and at once when told to (SIGHUP)."""
        keys, loop, hangup = self._keys, asyncio.get_running_loop(), getattr(signal, "SIGHUP", None)
        if keys is None:
            yield
            return
        if hangup is not None:
            loop.add_signal_handler(hangup, keys.reload)
        keys.watch()
        try:
            yield
        finally:
            keys.close()
            if hangup is not None:
                loop.remove_signal_handler(hangup)

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
        PenstockError: An address cannot be had, or others can reach it and nobody needs a key; the message
            says what to do.
    """
    _refuse_to_be_open(settings)
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


def _refuse_to_be_open(settings: ServerSettings) -> None:
    if settings.auth_keys is not None or _is_loopback(settings.host):
        return
    if settings.insecure_open:
        _log.warning("%s can be reached by others, and nobody needs a key", settings.host)
        return
    raise PenstockError(
        f"{settings.host} can be reached by others, and nobody would need a key: make one with "
        "`penstock keys new NAME --scope caller --file keys.txt` and start with --auth-keys keys.txt; "
        "or let everybody in with --insecure-open"
    )


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``; of a name, whatever it stands for."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, family=family, type=socket.SOCK_STREAM)
    except OSError:
        return True  # nobody listens there: to say so is `listen`'s part
    return all(ipaddress.ip_address(str(where[0]).partition("%")[0]).is_loopback for *_, where in found)


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


def address_of(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
