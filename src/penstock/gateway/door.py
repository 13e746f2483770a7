"""Where runners dial in: a WebSocket whose messages are a hello, and then parcels of the runner's session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import anyio

from penstock.calls.tasks import TaskOwner
from penstock.errors import FAULTS, CallError, ErrorCode, RemoteProtocolError
from penstock.gateway.hub import Hub
from penstock.gateway.runner import Parting
from penstock.gateway.runner_link import CLOSE_CODES, RunnerLink
from penstock.protocol.runners import Refusal, RunnerHello, Welcome, encode_hello, read_hello

CLOSE_S = 5.0  # how long a close may take to be written
ROOM = 64 * 1024  # bytes of a WebSocket message that are not the item in it
BURST = 16  # messages that are taken before others get a turn

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_log = logging.getLogger("penstock.gateway")


class Visitor(Protocol):
    """Who dials in, as whoever guards the door knows it."""

    @property
    def key(self) -> str:
        """The id of its key; empty where there are no keys."""
        ...

    @property
    def commands(self) -> frozenset[str] | None:
        """What it may offer; None is anything."""
        ...

    def still_welcome(self) -> bool:
        """Whether it would be let in now."""
        ...


class AsgiConnection:
    """A runner's WebSocket; ``penstock.runtime.session_link.Connection``.

    Args:
        send: Of the ASGI connection.
        tasks: Owns what closes it.
    """

    def __init__(self, send: Send, tasks: TaskOwner) -> None:
        self._send = send
        self._tasks = tasks
        self._closing = False

    async def send(self, data: bytes) -> None:
        """See ``Connection.send``."""
        if self._closing:
            raise ConnectionResetError("closed here")
        await self._send({"type": "websocket.send", "bytes": data})

    def close(self, code: int, reason: str) -> None:
        """See ``Connection.close``."""
        if not self._closing:
            self._tasks.start(self.aclose(code, reason), name="closing a runner")
            self._closing = True

    async def aclose(self, code: int, reason: str) -> None:
        """Close; returns within seconds."""
        self._closing = True
        with anyio.move_on_after(CLOSE_S):
            try:
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
            except (OSError, RuntimeError) as error:  # servers tell in their own ways that it is closed
                _log.debug("a connection was closed already: %s", error)


class RunnerDoor:
    """Takes the connections of runners.

    Args:
        hub: Whose runners they become.
        max_message: Bytes that the server takes in one WebSocket message.
    """

    def __init__(self, hub: Hub, max_message: int) -> None:
        self._hub = hub
        self._max_message = max_message

    async def __call__(self, receive: Receive, send: Send, visitor: Visitor) -> None:
        """Serve one connection to its end."""
        await receive()
        await send({"type": "websocket.accept"})
        connection = AsgiConnection(send, self._hub.links)
        try:
            runner = await self._let_in(receive, connection, visitor)
        except RemoteProtocolError as error:
            await self._refuse(connection, CallError(str(error), ErrorCode.INVALID_ARGUMENT))
        except CallError as error:
            await self._refuse(connection, error)
        except OSError:
            pass
        else:
            await self._serve(receive, connection, runner)

    async def _let_in(self, receive: Receive, connection: AsgiConnection, visitor: Visitor) -> RunnerLink:
        hello = await self._hello(receive)
        runner = self._hub.admit(hello, visitor.key, visitor.commands, visitor.still_welcome)
        settings = self._hub.settings
        received = hello.received if hello.session == runner.identity.session else 0
        welcome = Welcome(
            session=runner.identity.session,
            received=runner.link.received,
            heartbeat_s=settings.heartbeat_s,
            resume_s=settings.resume_s,
            max_message=max(self._max_message - ROOM, self._max_message // 2),
            prefix_blocks=settings.prefix_blocks,
        )
        try:
            await connection.send(encode_hello(welcome))
            runner.attach(connection, received)
        except OSError:
            runner.detach(connection)
            raise
        return runner

    async def _hello(self, receive: Receive) -> RunnerHello:
        try:
            with anyio.fail_after(self._hub.settings.hello_s):
                event = await receive()
        except TimeoutError:
            text = f"no hello within {self._hub.settings.hello_s:g} s"
            raise CallError(text, ErrorCode.REQUEST_TIMEOUT) from None
        if event["type"] != "websocket.receive":
            raise ConnectionResetError("it left without a word")
        return read_hello(_binary(event))

    async def _refuse(self, connection: AsgiConnection, error: CallError) -> None:
        _log.warning("a runner was refused: %s", error.message)
        try:
            await connection.send(encode_hello(Refusal(code=error.code, message=error.message)))
        except OSError:
            return
        await connection.aclose(FAULTS[error.code].ws_close or CLOSE_CODES[Parting.BROKE], error.code.value)

    async def _serve(self, receive: Receive, connection: AsgiConnection, runner: RunnerLink) -> None:
        burst = 0
        try:
            while (event := await receive())["type"] == "websocket.receive":
                runner.feed(connection, _binary(event))
                burst += 1
                if burst % BURST == 0:  # a server hands out what it has without a pause
                    await asyncio.sleep(0)
        finally:
            runner.detach(connection)


def _binary(event: Event) -> bytes:
    """Return a message's bytes; a text is none of ours, and no parcel either."""
    data = event.get("bytes")
    return data if isinstance(data, bytes) else b""
