"""One WebSocket to a server: dialled, spoken to, and closed, with its faults told in our own terms."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from penstock.client.http_reply import distrusted, type_of
from penstock.client.outcome import code_of_status, error_of
from penstock.errors import CallError, ConnectionFailed, ErrorCode
from penstock.protocol.codec import MAX_FRAME
from penstock.protocol.messages import Frame, decode_frame

CONNECT_S = 10.0
CLOSE_S = 2.0  # how long a server may take to answer a close
QUEUE = 16  # messages
PING_S = 30.0  # a server that leaves a ping unanswered for as long is gone

_TOO_BIG = 1009  # close code of RFC 6455 section 7.4.1


class Address(NamedTuple):
    """Where and how to dial.

    Attributes:
        url: Such as ``ws://127.0.0.1:8000/v2/ws``.
        headers: Sent with the request.
        max_frame: Largest message that is taken, in bytes.
        direct: Whether a proxy of the environment is passed over.
        tls: What the server's certificate is judged by; None is by those that the machine trusts.
    """

    url: str
    headers: Mapping[str, str]
    max_frame: int
    direct: bool
    tls: ssl.SSLContext | None


class Hangup(Exception):
    """The connection has ended; its text says how."""


class Wire:
    """An open WebSocket; see ``dial``."""

    def __init__(self, connection: ClientConnection, max_frame: int) -> None:
        self._connection = connection
        self._max_frame = max_frame

    async def send(self, fields: Mapping[str, Any]) -> None:
        """Send one message.

        Raises:
            CallError: ``too_large``.
            Hangup: Nobody is there any more.
        """
        text = msgspec.json.encode(fields)
        if len(text) > MAX_FRAME:  # a server would close the connection, and with it every other call
            raise CallError(
                f"the message has {len(text)} bytes, more than the {MAX_FRAME} a server takes",
                ErrorCode.TOO_LARGE,
            )
        try:
            await self._connection.send(text.decode())
        except ConnectionClosed as error:
            raise Hangup(self._reason(error)) from error

    async def receive(self) -> tuple[Frame, int]:
        """Return the next message and its size in bytes; of what is no frame, only the type.

        Raises:
            Hangup: The connection has ended, or the server speaks another language.
        """
        try:
            text = await self._connection.recv(decode=False)
            return decode_frame(text), len(text)
        except ConnectionClosed as error:
            raise Hangup(self._reason(error)) from error
        except CallError as error:
            kind = type_of(text)
            if kind in ("task", None):
                raise Hangup(f"the server sent {text[:120]!r}, {error.message}") from error
            return Frame(type=str(kind), status=""), len(text)

    async def aclose(self) -> None:
        """Close; returns within seconds, whatever the server does."""
        await self._connection.close()

    async def drop(self) -> None:
        """Close at once, with whatever was not read: a close in order would wait for that."""
        self._connection.transport.abort()
        await self._connection.wait_closed()

    def _reason(self, error: ConnectionClosed) -> str:
        if error.sent is not None and error.sent.code == _TOO_BIG:
            return f"the server sent a frame of more than {self._max_frame} bytes"
        if error.rcvd is not None:
            return f"closed by the server: {error.rcvd.code} {error.rcvd.reason}".rstrip()
        return "without a close frame"


def _refused(address: Address, status: int, body: bytes | bytearray | None) -> CallError:
    try:
        return error_of(decode_frame(bytes(body or b"")), status)
    except CallError:
        return CallError(
            f"{address.url} answered HTTP {status} and no WebSocket: is it penstock that serves there?",
            code_of_status(status),
        )


async def dial(address: Address, *, always_read: bool) -> Wire:
    """Connect.

    Args:
        address: Where.
        always_read: Nothing has to hold the server back, and pings can tell if it is still there; else what
            is not read waits in the network, pongs as well.

    Raises:
        ConnectionFailed: No server answers, or none that knows WebSockets.
        CallError: It refuses.
    """
    try:
        connection = await connect(
            address.url,
            additional_headers=address.headers,
            compression=None,
            open_timeout=CONNECT_S,
            close_timeout=CLOSE_S,
            ping_interval=PING_S if always_read else None,
            ping_timeout=PING_S,
            max_queue=None if always_read else QUEUE,
            max_size=address.max_frame,
            proxy=None if address.direct else True,
            ssl=(address.tls or True) if address.url.startswith("wss:") else None,
        )
    except InvalidStatus as error:
        raise _refused(address, error.response.status_code, error.response.body) from error
    except ssl.SSLCertVerificationError as error:
        raise distrusted(address.url, error.verify_message) from error
    except (OSError, TimeoutError, EOFError, WebSocketException) as error:
        raise ConnectionFailed(
            f"no WebSocket answers at {address.url} ({str(error) or type(error).__name__}): "
            "start a server with `penstock run PROJECT`, or check the address",
            sent=False,
        ) from error
    return Wire(connection, address.max_frame)
