"""One HTTP request and its response, over raw ASGI: what every route needs and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from penstock.calls.ids import new_id
from penstock.calls.tasks import TaskOwner
from penstock.errors import FAULTS, CallError, ErrorCode
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import error_envelope
from penstock.protocol.openai_api.errors import openai_error

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
OPENAI = "/v1/"
"""Paths below it answer as OpenAI's do."""
OUTLET_EXTENSION = "penstock.outlet"
"""Where a server that can do more than ASGI puts its ``Outlet``, among the scope's extensions."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def header_of(scope: MutableMapping[str, Any], name: bytes) -> str | None:
    """Return a header of an ASGI scope; the first, where it stands several times."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def correlation_id(given: str | None, max_length: int) -> str:
    """Return an X-Request-Id in its printable part, or an invented one."""
    return _UNPRINTABLE.sub("", given or "")[:max_length] or new_id()


class ClientGone(Exception):
    """The client left before its request was complete; there is nobody to answer."""


class Outlet(Protocol):
    """Where an answer goes; what a client that has left does not take is passed over."""

    def on_gone(self, gone: Callable[[], None]) -> None:
        """Call ``gone`` when the client leaves; at once if it has."""

    def forget_gone(self) -> None:
        """Call nobody any more."""

    async def reply(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """Write a whole answer."""

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """Begin an answer of parts."""

    async def write(self, body: bytes, *, more: bool) -> None:
        """Write a part; ``more=False`` ends the answer."""


class AsgiOutlet:
    """An outlet on any ASGI server.

    Args:
        tasks: Owns the task that watches for a client that leaves.
    """

    def __init__(self, receive: Receive, send: Send, tasks: TaskOwner) -> None:
        self._receive = receive
        self._send = send
        self._tasks = tasks
        self._watch: asyncio.Task[None] | None = None

    def on_gone(self, gone: Callable[[], None]) -> None:
        """See ``Outlet.on_gone``."""
        self._watch = self._tasks.start(self._until_gone(gone), name="watch")

    def forget_gone(self) -> None:
        """See ``Outlet.forget_gone``."""
        watch, self._watch = self._watch, None  # the task knows this outlet
        if watch is not None:
            watch.cancel()

    async def reply(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """See ``Outlet.reply``."""
        await self.start(status, (*headers, (b"content-length", b"%d" % len(body))))
        await self.write(body, more=False)

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """See ``Outlet.start``."""
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, body: bytes, *, more: bool) -> None:
        """See ``Outlet.write``."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _until_gone(self, gone: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        gone()


class Exchange:
    """A request to read and a response to write.

    Args:
        wall: Unix seconds, for error frames.
        max_body: Largest body, in bytes.
        tasks: Owns what must run beside it.
    """

    __slots__ = (
        "also",
        "caller",
        "code",
        "headers",
        "max_body",
        "outlet",
        "receive",
        "scope",
        "send",
        "started",
        "status",
        "wall",
    )

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
        *,
        wall: Callable[[], float],
        max_body: int,
        max_correlation: int,
        tasks: TaskOwner,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        # Taken out: it knows the scope, and a circle of references is freed late.
        direct: Outlet | None = (scope.get("extensions") or {}).pop(OUTLET_EXTENSION, None)
        self.outlet = AsgiOutlet(receive, send, tasks) if direct is None else direct
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of a name, the first counts
        self.wall = wall
        self.max_body = max_body
        self.started = False
        self.status = 0  # of the answer; 0 while there is none
        self.code = ""  # of a refusal
        self.also: tuple[Header, ...] = ()  # of whatever is answered
        self.caller = Caller(
            correlation_id=correlation_id(self.header(b"x-request-id"), max_correlation),
            trace_parent=self.header(b"traceparent"),
        )

    def header(self, name: bytes) -> str | None:
        """Return a request header; the first, where it stands several times."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def json_body(self) -> bytes:
        """Return the body of a request that must be JSON.

        Raises:
            CallError: ``unsupported_media_type`` or ``too_large``.
            ClientGone: The client left half-way.
        """
        kind = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            # Browsers send other types across origins without asking first.
            raise CallError(
                f"the body must be JSON, with `Content-Type: application/json` (not {kind or 'none'})",
                ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            )
        if self.header(b"content-encoding") not in (None, "identity"):
            raise CallError("compressed bodies are not accepted", ErrorCode.UNSUPPORTED_MEDIA_TYPE)
        return await self._body()

    async def _body(self) -> bytes:
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self.max_body:
            raise self._too_large()
        parts, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_body:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> CallError:
        return CallError(f"the body is larger than {self.max_body} bytes", ErrorCode.TOO_LARGE)

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """Begin the response."""
        self.started = True
        self.status = status
        await self.outlet.start(status, (*headers, self._identity(), *self.also))

    async def reply(
        self, status: int, body: bytes, headers: Iterable[Header] = (), kind: Header = JSON
    ) -> None:
        """Answer with a body, JSON unless its ``kind`` is another content type."""
        self.started = True
        self.status = status
        await self.outlet.reply(status, (kind, *headers, self._identity(), *self.also), body)

    async def nothing(self, headers: Iterable[Header] = ()) -> None:
        """Answer that all is well, and no more."""
        await self.start(204, headers)
        await self.outlet.write(b"", more=False)

    async def noting_send(self, message: Message) -> None:
        """Send what somebody else answers with."""
        self.status = message.get("status", self.status)
        await self.send(message)

    def _identity(self) -> Header:
        return (b"x-request-id", self.caller.correlation_id.encode("latin-1"))

    async def refuse(self, error: CallError, headers: Iterable[Header] = ()) -> None:
        """Answer with an error that belongs to no call."""
        self.code = error.code.value
        openai = self.scope["path"].startswith(OPENAI)
        body = openai_error(error) if openai else error_envelope(error, self.wall())
        await self.reply(FAULTS[error.code].http, body, (*advice(error), *headers))


def advice(error: CallError | None) -> tuple[Header, ...]:
    """Return the headers that say when, or with what, to try again."""
    if error is None:
        return ()
    if error.code is ErrorCode.UNAUTHENTICATED:
        return ((b"www-authenticate", b"Bearer"),)  # RFC 9110 section 11.6.1
    if error.retry_after_s is None:
        return ()
    return ((b"retry-after", b"%d" % max(1, round(error.retry_after_s))),)
