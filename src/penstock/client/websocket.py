"""The WebSocket transport: many calls on one socket (WIRE.md section 3).

A call that is read again has a socket for itself, as its frames bear a name that another reader may have in
use; and so has a call that outruns its reader, which then holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Coroutine
from typing import Any

import anyio
import httpx
import msgspec

from penstock.calls.tasks import TaskOwner
from penstock.client.http import HttpTransport, is_loopback
from penstock.client.inbox import Inbox
from penstock.client.outcome import error_of
from penstock.client.request import fields_of, no_key
from penstock.client.sockets import OwnSocket, SharedSocket, Source
from penstock.client.transport import Asked, Offer, Reply, ServerHealth, Task, closed
from penstock.client.wire import CLOSE_S, Address, Wire, dial
from penstock.errors import ConnectionFailed, PenstockError
from penstock.protocol.codec import MAX_FRAME
from penstock.protocol.dispatch import CancelOutcome
from penstock.protocol.messages import Frame

DEFAULT_PATH = "/v2/ws"


class SocketReply:
    """The frames of one call; ``penstock.client.transport.Reply``.

    Args:
        inbox: Where they come in.
        source: Where they come from.
        tasks: Owns what goes on after this was left.
    """

    def __init__(self, inbox: Inbox, source: Source, tasks: TaskOwner) -> None:
        self.inbox = inbox
        self.source = source
        self._moving: asyncio.Task[None] | None = None
        self._tasks = tasks

    async def __anext__(self) -> list[Frame]:
        return await self.inbox.take()

    async def send(self, item: bytes) -> None:
        """See ``Reply.send``."""
        await self._tell("input", data=msgspec.Raw(item))

    async def end_input(self) -> None:
        """See ``Reply.end_input``."""
        await self._tell("input_end")

    async def aclose(self) -> None:
        """See ``Reply.aclose``; whoever leaves may be in no state to wait, so the server is told later."""
        self._tasks.start(self._leave(), name="leaving")

    def move(self, work: Coroutine[Any, Any, None]) -> None:
        """Let ``work`` find another source."""
        self._moving = self._tasks.start(work, name="moving")

    async def _leave(self) -> None:
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.wait((self._moving,))
        with contextlib.suppress(PenstockError):  # the connection broke, and the server knows
            await self.source.leave(self.inbox)

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self.source.send({"type": kind, "task_id": self.inbox.name, **fields})


class WebSocketTransport:
    """Runs calls on a server over WebSockets; what is no call is asked over HTTP, at the same host and port.

    Args:
        url: Where it is, such as ``ws://127.0.0.1:8000``; without a path, `/v2/ws` is meant.
        api_key: Sent as a bearer token.
        max_frame: Largest frame that is taken, in bytes.
        tls: What the server's certificate is judged by; None is by those that the machine trusts.
        http: An httpx client for what goes over HTTP; it stays the caller's to close.

    Raises:
        ValueError: ``url`` is no ws or wss URL.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        max_frame: int = MAX_FRAME,
        tls: ssl.SSLContext | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        parsed = _checked(url)
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._address = Address(str(parsed), headers, max_frame, is_loopback(parsed), tls)
        scheme = parsed.scheme.replace("ws", "http")
        base = str(parsed.copy_with(scheme=scheme, raw_path=b"/"))
        self._http = HttpTransport(base, api_key=api_key, max_frame=max_frame, tls=tls, http=http)
        self._sockets: list[SharedSocket] = []
        self._dialling = asyncio.Lock()
        self._reading = TaskOwner()
        self._leaving = TaskOwner()
        self._closed = False

    async def run(self, asked: Asked) -> Frame:
        """See ``Transport.run``."""
        reply = await self._start(asked)
        try:
            with anyio.move_on_after(asked.patience_s):
                return (await reply.__anext__())[-1]
        finally:
            await reply.aclose()
        raise ConnectionFailed(f"{self._address.url} did not answer in time")

    async def open(self, asked: Asked) -> Reply:
        """See ``Transport.open``."""
        return await _accepted(await self._start(asked))

    async def resume(self, call_id: str, after: int, correlation_id: str) -> Reply:
        """See ``Transport.resume``."""
        inbox = Inbox(call_id)
        own = await self._own(inbox)
        reply = SocketReply(inbox, own, self._leaving)
        try:
            await own.resume(call_id, after)
        except BaseException:
            await reply.aclose()
            raise
        return await _accepted(reply)

    async def cancel(self, task_id: str) -> CancelOutcome:
        """See ``Transport.cancel``."""
        for socket in self._sockets:
            if (name := socket.has(task_id)) is not None:
                return await socket.cancel(name)
        return await (await self._shared(task_id)).cancel(task_id)

    async def task(self, task_id: str) -> Task:
        """See ``Transport.task``."""
        return await self._http.task(task_id)

    async def tasks(self) -> list[Task]:
        """See ``Transport.tasks``."""
        return await self._http.tasks()

    async def offer(self) -> Offer:
        """See ``Transport.offer``."""
        return await self._http.offer()

    async def health(self) -> ServerHealth:
        """See ``Transport.health``."""
        return await self._http.health()

    async def aclose(self) -> None:
        """See ``Transport.aclose``."""
        self._closed = True
        await self._leaving.settle(CLOSE_S)
        await self._reading.aclose()
        await self._leaving.aclose()
        await self._http.aclose()

    # -- inside --------------------------------------------------------------------------------------

    async def _start(self, asked: Asked) -> SocketReply:
        """Ask for a call."""
        if asked.idempotency_key is not None:
            raise no_key()
        start = asked.start
        name = start.task_id or secrets.token_hex(16)  # calls on a socket are told apart by it
        socket, inbox = await self._shared(name), Inbox(name)
        socket.attach(inbox)
        reply = SocketReply(inbox, socket, self._leaving)
        inbox.on_full = lambda: reply.move(self._move(reply, socket))
        about = {"task_id": name, "correlation_id": asked.correlation_id, "more_input": start.more_input}
        try:
            kind = "command" if start.workflow_id is None else "workflow"
            await socket.send({"type": kind, **fields_of(start), **about})
        except BaseException:
            await reply.aclose()
            raise
        return reply

    async def _shared(self, name: str) -> SharedSocket:
        """Return a socket that takes a call of this name."""
        async with self._dialling:
            socket = next((socket for socket in self._sockets if socket.takes(name)), None)
            if socket is None:
                socket = SharedSocket(await self._dial(always_read=True))
                self._sockets = [*(each for each in self._sockets if each.open), socket]
                self._reading.start(socket.run(), name="reading")
            return socket

    async def _own(self, inbox: Inbox) -> OwnSocket:
        own = OwnSocket(await self._dial(always_read=False), inbox)
        self._reading.start(own.run(), name="reading")
        return own

    async def _dial(self, *, always_read: bool) -> Wire:
        if self._closed:
            raise closed()
        return await dial(self._address, always_read=always_read)

    async def _move(self, reply: SocketReply, shared: SharedSocket) -> None:
        """Give a call that outruns its reader a socket of its own; it never is without a reader meanwhile."""
        inbox = reply.inbox
        try:
            reply.source = own = await self._own(inbox)
            await own.resume(inbox.request_id or inbox.name, inbox.last_seq)
            await own.begun.wait()
        except PenstockError as error:
            inbox.fail(f"its reader fell behind, and the rest could not be asked for: {error}")
        finally:
            with contextlib.suppress(PenstockError):  # the connection broke, and the server knows
                await shared.leave(inbox)


async def _accepted(reply: SocketReply) -> SocketReply:
    """Wait until the call is accepted.

    Raises:
        CallError: It is refused, or the connection broke.
    """
    try:
        await reply.inbox.first()
        if reply.inbox.refusal is not None:
            raise error_of(reply.inbox.refusal)
    except BaseException:
        await reply.aclose()
        raise
    return reply


def _checked(url: str) -> httpx.URL:
    mistake = ValueError(f"{url!r} is no server's URL; write it like ws://127.0.0.1:8000")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise mistake from error
    if parsed.scheme not in ("ws", "wss") or not parsed.host:
        raise mistake
    return parsed if parsed.path.strip("/") else parsed.copy_with(path=DEFAULT_PATH)
