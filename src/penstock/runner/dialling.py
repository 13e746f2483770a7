"""Dialling a gateway: one WebSocket, opened with a hello and an answer to it."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ConnectionFailed, ErrorCode, RemoteProtocolError
from penstock.protocol.reliable import MAX_PARCEL
from penstock.protocol.runners import PATH, Refusal, RunnerHello, Welcome, encode_hello, read_reply
from penstock.protocol.session import MAX_MESSAGE

CONNECT_S = 10.0
HELLO_S = 15.0
CLOSE_S = 2.0  # how long a gateway may take to answer a close

_CODES = {401: ErrorCode.UNAUTHENTICATED, 403: ErrorCode.PERMISSION_DENIED, 404: ErrorCode.NOT_FOUND}
_log = logging.getLogger("penstock.runner")


class Target(NamedTuple):
    """Where to dial.

    Attributes:
        url: Such as ``ws://gateway:8000/v2/runners``.
        token: Sent in the header Authorization only.
        tls: What the gateway's certificate is judged by; None is by those that the machine trusts.
    """

    url: str
    token: str | None
    tls: ssl.SSLContext | None = None


class _NoRedirects(connect):
    """Goes where it is sent, and nowhere else: a token must not be taken along to another place."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WireConnection:
    """An open WebSocket to a gateway; ``penstock.runtime.session_link.Connection``.

    Args:
        socket: It becomes this object's to close.
        tasks: Owns what closes it.
    """

    def __init__(self, socket: ClientConnection, tasks: TaskOwner) -> None:
        self._socket = socket
        self._tasks = tasks
        self._closing = False

    @property
    def close_code(self) -> int | None:
        """The code with which the gateway closed it."""
        return self._socket.close_code

    async def send(self, data: bytes) -> None:
        """See ``Connection.send``."""
        try:
            await self._socket.send(data)
        except ConnectionClosed as error:
            raise ConnectionResetError(_reason(error)) from error

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            ConnectionFailed: There is none; the connection has ended.
        """
        try:
            message = await self._socket.recv(decode=False)
        except ConnectionClosed as error:
            raise ConnectionFailed(_reason(error)) from error
        return bytes(message)

    def close(self, code: int, reason: str) -> None:
        """See ``Connection.close``."""
        if not self._closing:
            self._closing = True
            self._tasks.start(self.aclose(code, reason), name="closing")

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close; returns within seconds, whatever the gateway does."""
        self._closing = True
        await self._socket.close(code, reason)

    def abort(self) -> None:
        """Close now, without a word: the gateway does not listen."""
        self._socket.transport.abort()


async def dial(target: Target, hello: RunnerHello, tasks: TaskOwner) -> tuple[WireConnection, Welcome]:
    """Connect, and say who is there.

    Raises:
        ConnectionFailed: No gateway answers there.
        CallError: It refuses.
    """
    connection = WireConnection(await _connect(target), tasks)
    try:
        with anyio.fail_after(HELLO_S):
            await connection.send(encode_hello(hello))
            reply = read_reply(await connection.receive())
    except (OSError, TimeoutError, RemoteProtocolError) as error:
        await connection.aclose(1002)
        text = f"{target.url} does not answer as a gateway does ({str(error) or type(error).__name__})"
        raise ConnectionFailed(text) from error
    except BaseException:
        await connection.aclose(1002)
        raise
    if isinstance(reply, Refusal):
        await connection.aclose()
        raise reply.error()
    return connection, reply


async def _connect(target: Target) -> ClientConnection:
    headers = {} if target.token is None else {"authorization": f"Bearer {target.token}"}
    try:
        return await _NoRedirects(
            target.url,
            additional_headers=headers,
            compression=None,
            open_timeout=CONNECT_S,
            close_timeout=CLOSE_S,
            ping_interval=None,  # the session has heartbeats of its own, which more than the network answers
            max_queue=16,
            max_size=MAX_MESSAGE + MAX_PARCEL,
            proxy=None if is_loopback(urlsplit(target.url).hostname or "") else True,
            ssl=(target.tls or True) if target.url.startswith("wss:") else None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        code = _CODES.get(status, ErrorCode.UNAVAILABLE)
        raise CallError(f"{target.url} answered HTTP {status} and no WebSocket", code) from error
    except ssl.SSLCertVerificationError as error:
        text = f"{target.url} shows a certificate that is not trusted here ({error.verify_message})"
        raise ConnectionFailed(f"{text}; name the CA that vouches for it with --ca") from error
    except (OSError, TimeoutError, EOFError, WebSocketException) as error:
        why = str(error) or type(error).__name__
        raise ConnectionFailed(f"no gateway answers at {target.url} ({why})") from error


def target_of(url: str, token: str | None, tls: ssl.SSLContext | None = None) -> Target:
    """Read a gateway's URL; without a path, `/v2/runners` is meant.

    Raises:
        ValueError: It is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.username or parts.query:
        raise ValueError(f"{url[:100]!r} is no gateway's URL; write it like wss://gateway.example:8000")
    if token is not None and parts.scheme == "ws" and not is_loopback(parts.hostname):
        _log.warning("the token goes to %s without encryption; use wss:// where others can listen", url)
    return Target(parts._replace(path=parts.path.rstrip("/") or PATH).geturl(), token, tls)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: ConnectionClosed) -> str:
    if error.rcvd is not None:
        return f"closed by the gateway: {error.rcvd.code} {error.rcvd.reason}".rstrip()
    return "the connection broke"
