"""Accepting connections: all that wait, at each turn of the event loop.

uvloop takes one connection per turn.  With a thousand busy streams a turn takes long, and a thousand clients
that come at once would wait a thousand of them; so would whoever asks whether the server is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn

from penstock.calls.tasks import TaskOwner

_log = logging.getLogger("penstock.server")

MOST_AT_ONCE = 256  # per turn, so that those who are connected have theirs
PAUSE_S = 1.0  # without a free file descriptor; to try again at once would only burn time
_FULL = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Acceptor:
    """Takes the connections of one listening socket; stands in for an ``asyncio.Server``.

    Args:
        listener: The socket, which stays its owner's.
        protocol: Makes the protocol of a connection.
        tls: Encrypts it; None leaves it in clear.
        handshake_s: How long that may take to begin.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None = None,
        handshake_s: float = 10.0,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._tls = tls
        self._handshake_s = None if tls is None else handshake_s
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskOwner()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket."""
        return (self._listener,)

    def close(self) -> None:
        """Take no more connections."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Return once the connections that were taken have their protocols."""
        await self._tasks.aclose()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(MOST_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # it left while it waited
                continue
            except OSError as error:
                self._cannot(error)
                return
            connection.setblocking(False)
            self._tasks.start(self._connect(connection), name="connection")

    def _cannot(self, error: OSError) -> None:
        if error.errno not in _FULL:
            raise error
        _log.error("no connection can be accepted (%s); raise `ulimit -n`", error.strerror)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(PAUSE_S, self._listen)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
            )
        except OSError:  # it has left already, or does not speak TLS
            connection.close()


class Server(uvicorn.Server):
    """uvicorn's server, with signals left to others, and with acceptors of its own where the event loop
    watches sockets.

    Args:
        config: Of uvicorn.
        tls: Encrypts the connections; None leaves them in clear.
        handshake_s: How long that may take to begin.
    """

    def __init__(
        self, config: uvicorn.Config, tls: ssl.SSLContext | None = None, handshake_s: float = 10.0
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._handshake_s = handshake_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on ``sockets``."""
        if not _watches_sockets():
            self.config.ssl = self._tls
            await super().startup(sockets)
            return
        acceptors = [
            Acceptor(listener, self._protocol, self._tls, self._handshake_s) for listener in sockets or ()
        ]
        self.servers = acceptors  # type: ignore[assignment]
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state={}
        )
        return made


def _watches_sockets() -> bool:
    """Whether the running loop has ``add_reader``; Windows' proactor has not."""
    loop = asyncio.get_running_loop()
    return not hasattr(asyncio, "ProactorEventLoop") or not isinstance(loop, asyncio.ProactorEventLoop)
