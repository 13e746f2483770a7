"""The ways in.  A behaviour test is written once against ``Way`` and ``Handle`` and runs over each of them;
another way in is another class here and a place in ``WAYS``.

A frame is a dict in wire order.  What a handle has received is kept in ``received``, byte for byte, for the
log checker.  HTTP JSON shows only the terminal frame, by design; ``until`` then looks at the log.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from itertools import count
from typing import Any, ClassVar

import anyio
import msgspec

from behaviour.raw_http import WAIT_S, Address, Connection, Departure, Reply
from behaviour.seam import Watched
from server.peer import Peer
from penstock.calls.tasks import TaskOwner
from penstock.errors import FAULTS, CallError, ErrorCode
from penstock.protocol.dispatch import LOCAL, FrameReader, LiveCall
from penstock.protocol.messages import CancelReason, OnDisconnect, Start

Frame = dict[str, Any]
ANSWER_S = (
    60.0  # an answer comes when its call ends, whenever the test ends it; the test's own waits are short
)
TERMINAL = ("completed", "error", "cancelled")
_correlations = count(1)


class Refused(Exception):
    """The call was refused at admission; each way tells it in its own manner, with one content."""

    def __init__(self, envelope: Frame, status: int, retry_after: str | None) -> None:
        super().__init__(f"{status} {envelope}")
        self.envelope = envelope
        self.status = status
        self.retry_after = None if retry_after is None else int(retry_after)
        self.code: str = envelope["code"]
        self.error: str = envelope["error"]

    @classmethod
    def answered(cls, reply: Reply) -> Refused:
        """Read an HTTP refusal."""
        return cls(json.loads(reply.body), reply.status, reply.headers.get("retry-after"))

    @classmethod
    def raised(cls, error: CallError) -> Refused:
        """Read a refusal in process."""
        envelope = {"error": error.message, "code": error.code.value, "details": list(error.details)}
        after = None if error.retry_after_s is None else str(round(error.retry_after_s))
        return cls(envelope, error.http_status, after)


class Handle(ABC):
    """One call as its caller sees it."""

    def __init__(self, way: Way, request_id: str, task_id: str) -> None:
        self.way = way
        self.request_id = request_id
        self.task_id = task_id
        self.received: list[bytes] = []
        self.at_end = False  # the transport said so, in order

    @abstractmethod
    async def next_line(self) -> bytes | None:
        """Return the next frame's bytes; None at the end."""

    @abstractmethod
    async def drop(self, how: Departure = "fin") -> None:
        """Go away without a word about the call."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what this handle holds."""

    async def next_frame(self) -> Frame | None:
        """Return the next frame; None at the end."""
        with anyio.fail_after(WAIT_S):
            line = await self.next_line()
        if line is None:
            self.at_end = True
            return None
        self.received.append(line)
        return json.loads(line)

    async def frames(self) -> list[Frame]:
        """Return all that is still to come."""
        frames = []
        while (frame := await self.next_frame()) is not None:
            frames.append(frame)
        return frames

    async def until(self, status: str) -> Frame:
        """Return the next frame of this status, passing over those before it."""
        while (frame := await self.next_frame()) is not None:
            if frame["status"] == status:
                return frame
            assert frame["status"] not in TERMINAL, f"{status} was due, the call ended with {frame}"
        raise AssertionError(f"{status} was due, the frames ended")

    async def last(self) -> Frame:
        """Return the terminal frame, passing over those before it."""
        await self.frames()
        return json.loads(self.received[-1])

    async def cancel(self) -> str:
        """Cancel from elsewhere; return the outcome."""
        return await self.way.cancel(self.request_id)


class Way(ABC):
    """One way in to one served app.

    Args:
        dispatcher: What runs the calls.
        address: Where it is served over HTTP.
    """

    name: ClassVar[str]
    streams: ClassVar[bool] = True  # whether every frame reaches the caller
    departures: ClassVar[tuple[Departure, ...]] = ("fin", "rst", "half")

    def __init__(self, dispatcher: Watched, address: Address) -> None:
        self.dispatcher = dispatcher
        self.address = address
        self.handles: list[Handle] = []

    @abstractmethod
    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        """Open a call; ``more`` are ``task_id``, ``on_disconnect``, ``notes`` and ``timeout`` as on the wire.

        Raises:
            Refused: At admission.
        """

    @abstractmethod
    async def resume(self, call_id: str, after: int = -1) -> Handle:
        """Read a call's log behind frame ``after``, then what comes.

        Raises:
            Refused: There is no such call or frame.
        """

    @abstractmethod
    async def cancel(self, call_id: str) -> str:
        """Cancel a call; return the outcome.

        Raises:
            Refused: There is no such call.
        """

    @abstractmethod
    async def record(self, call_id: str) -> Frame:
        """Return what is known of a call.

        Raises:
            Refused: There is no such call.
        """

    @abstractmethod
    async def health(self) -> Frame:
        """Return what the readiness probe says."""

    async def ask(self, command: str, input: Frame | None = None, **more: Any) -> Frame:
        """Run a call to its end; return the terminal frame of a call that does not stream."""
        call = await self.open(command, input, is_stream=False, **more)
        frame = await call.last()
        await call.aclose()
        return frame

    async def watch(self, call: Handle) -> Handle:
        """Return what shows each frame of ``call`` as it comes: itself, or an onlooker where it cannot."""
        return call if self.streams else await self.resume(call.request_id)

    async def log(self, call_id: str) -> list[Frame]:
        """Return a call's whole log, up to its end."""
        replay = await self.resume(call_id)
        frames = await replay.frames()
        await replay.aclose()
        return frames

    async def aclose(self) -> None:
        """Leave every call that is still held."""
        for handle in self.handles:
            await handle.aclose()


# -- in process ----------------------------------------------------------------------------------------


class LocalHandle(Handle):
    """A reader of a live call."""

    def __init__(self, way: Way, live: LiveCall, only_last: bool) -> None:
        super().__init__(way, live.request_id, live.task_id)
        self._only_last = only_last
        self._lines: deque[bytes] = deque()
        self._reader: FrameReader

    async def attach(self, live: LiveCall, after: int) -> LocalHandle:
        """Start to read."""
        self._reader = await live.reader(after).__aenter__()
        return self

    async def next_line(self) -> bytes | None:
        while not self._lines:
            try:
                batch = await self._reader.__anext__()
            except StopAsyncIteration:
                return None
            if not self._only_last:
                self._lines.extend(batch.lines)
            elif batch.ending is not None:
                self._lines.append(batch.lines[-1])
        return self._lines.popleft()

    async def drop(self, how: Departure = "fin") -> None:
        self._reader.close()

    async def aclose(self) -> None:
        self._reader.close()


class Local(Way):
    """The dispatcher itself, in process."""

    name = "local"
    departures = ("fin",)

    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        try:
            live = await self.dispatcher.open(_start(command, input, is_stream, more), LOCAL)
        except CallError as error:
            raise Refused.raised(error) from error
        handle = await LocalHandle(self, live, only_last=not is_stream).attach(live, -1)
        self.handles.append(handle)
        return handle

    async def resume(self, call_id: str, after: int = -1) -> Handle:
        try:
            live = self.dispatcher.find(call_id, LOCAL)
            handle = await LocalHandle(self, live, only_last=False).attach(live, after)
        except CallError as error:
            raise Refused.raised(error) from error
        self.handles.append(handle)
        return handle

    async def cancel(self, call_id: str) -> str:
        try:
            return await self.dispatcher.cancel(call_id, CancelReason.CALLER, LOCAL)
        except CallError as error:
            raise Refused.raised(error) from error

    async def record(self, call_id: str) -> Frame:
        try:
            return json.loads(msgspec.json.encode(self.dispatcher.find(call_id, LOCAL).record()))
        except CallError as error:
            raise Refused.raised(error) from error

    async def health(self) -> Frame:
        return msgspec.to_builtins(await self.dispatcher.health())


def _start(command: str, input: Frame | None, is_stream: bool, more: Frame) -> Start:
    return Start(
        command=command,
        input=json.dumps(input or {}).encode(),
        is_stream=is_stream,
        task_id=more.get("task_id"),
        notes=more.get("notes", False),
        on_disconnect=OnDisconnect.parse(more.get("on_disconnect", "cancel")),
        timeout_s=more.get("timeout"),
    )


# -- HTTP ----------------------------------------------------------------------------------------------


class HttpHandle(Handle):
    """A streamed response, or the one answer of a request that does not stream."""

    def __init__(self, way: Http, connection: Connection, request_id: str, task_id: str) -> None:
        super().__init__(way, request_id, task_id)
        self.connection = connection
        self._way = way
        self._lines: deque[bytes] = deque()
        self._tail = b""
        self._over = False

    async def next_line(self) -> bytes | None:
        while not self._lines and not self._over:
            piece = await self.connection.piece()
            self._over = not piece
            self._tail = self._way.split(self._tail + piece, self._lines, len(self.received))
        if self._lines:
            return self._lines.popleft()
        assert not self._tail, f"the stream ended within a frame: {self._tail!r}"
        return None

    async def drop(self, how: Departure = "fin") -> None:
        await self.connection.leave(how)

    async def aclose(self) -> None:
        await self.connection.aclose()


class AnswerHandle(HttpHandle):
    """The answer of a request that does not stream.

    Args:
        reply: Reads it.
    """

    def __init__(self, way: Http, connection: Connection, live: LiveCall, reply: asyncio.Task[Reply]) -> None:
        super().__init__(way, connection, live.request_id, live.task_id)
        self._reply = reply

    async def next_line(self) -> bytes | None:
        if self._over:
            return None
        self._over = True
        self.reply = await self._reply
        return self.reply.body

    async def until(self, status: str) -> Frame:
        if status in TERMINAL:
            return await super().until(status)
        onlooker = await self._way.resume(self.request_id)
        frame = await onlooker.until(status)
        await onlooker.aclose()
        return frame

    async def drop(self, how: Departure = "fin") -> None:
        self._reply.cancel()
        await super().drop(how)

    async def aclose(self) -> None:
        self._reply.cancel()
        await super().aclose()


class Http(Way):
    """HTTP on a real socket; subclasses say how a stream is asked for and how it stands on the wire."""

    accept = "*/*"
    content_type = "application/x-ndjson"

    def __init__(self, dispatcher: Watched, address: Address) -> None:
        super().__init__(dispatcher, address)
        self._idle: list[Connection] = []
        self._tasks = TaskOwner()

    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        body = {"command": command, "input": input or {}, "is_stream": is_stream, **more}
        return await self._open(body, {"accept": self.accept})

    async def _open(self, body: Frame, headers: dict[str, str]) -> Handle:
        correlation = f"test-{next(_correlations)}"
        opened = self.dispatcher.expect(correlation)
        connection = await Connection.open(self.address)
        headers = {**headers, "x-request-id": correlation}
        connection.request("POST", "/v2/execute", json.dumps(body).encode(), headers)
        if not body.get("is_stream", True):
            return await self._answer(connection, opened)
        head = await connection.head()
        if head.status != 200:
            raise await self._refused(connection, Reply(*head, await connection.body()))
        assert head.headers["content-type"] == self.content_type
        live = opened.result()
        return self._held(HttpHandle(self, connection, live.request_id, live.task_id))

    async def _answer(self, connection: Connection, opened: asyncio.Future[LiveCall]) -> Handle:
        """Return once the call is accepted, or raise once it is refused; the answer itself is for later."""
        reply = self._tasks.start(connection.reply(wait_s=ANSWER_S))
        await asyncio.wait((opened, reply), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise await self._refused(connection, await reply)
        return self._held(AnswerHandle(self, connection, opened.result(), reply))

    async def _refused(self, connection: Connection, reply: Reply) -> Refused:
        await connection.aclose()
        return Refused.answered(reply)

    def _held(self, handle: HttpHandle) -> HttpHandle:
        self.handles.append(handle)
        return handle

    async def resume(self, call_id: str, after: int = -1) -> Handle:
        connection = await Connection.open(self.address)
        connection.request("GET", f"/tasks/{call_id}/events?after={after}", headers={"accept": self.accept})
        head = await connection.head()
        if head.status != 200:
            raise await self._refused(connection, Reply(*head, await connection.body()))
        live = self.dispatcher.find(call_id, LOCAL)
        return self._held(HttpHandle(self, connection, live.request_id, live.task_id))

    async def cancel(self, call_id: str) -> str:
        return (await self._told("POST", f"/tasks/{call_id}/cancel"))["outcome"]

    async def record(self, call_id: str) -> Frame:
        return await self._told("GET", f"/tasks/{call_id}")

    async def health(self) -> Frame:
        return json.loads((await self.request("GET", "/readyz")).body)

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Send a request on a kept connection, and return the whole response."""
        connection = self._idle.pop() if self._idle else await Connection.open(self.address)
        try:
            connection.request(method, path, body, headers)
            reply = await connection.reply(method)
        except BaseException:
            await connection.aclose()
            raise
        self._idle.append(connection)
        return reply

    async def _told(self, method: str, path: str) -> Frame:
        reply = await self.request(method, path)
        if reply.status != 200:
            raise Refused.answered(reply)
        return json.loads(reply.body)

    async def aclose(self) -> None:
        await super().aclose()
        for connection in self._idle:
            await connection.aclose()
        await self._tasks.aclose()

    def split(self, data: bytes, into: deque[bytes], seen: int) -> bytes:
        """Take the complete frames off ``data``; return what is left of it."""
        *lines, rest = data.split(b"\n")
        into.extend(line for line in lines if not line.startswith(b'{"type":"keepalive"'))
        return rest


class HttpNdjson(Http):
    """A streamed response, a frame a line."""

    name = "http-ndjson"


class HttpSse(Http):
    """A streamed response of server-sent events, asked for by ``Accept`` alone."""

    name = "http-sse"
    accept = "text/event-stream"
    content_type = "text/event-stream"

    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        if not is_stream:
            return await super().open(command, input, is_stream=False, **more)
        return await self._open({"command": command, "input": input or {}, **more}, {"accept": self.accept})

    def split(self, data: bytes, into: deque[bytes], seen: int) -> bytes:
        *events, rest = data.split(b"\n\n")
        for event in events:
            if not event.startswith(b":"):
                first, second = event.split(b"\n")
                line = second.removeprefix(b"data: ")
                assert first == b"id: %d" % json.loads(line)["seq"]
                into.append(line)
        return rest


class HttpJson(Http):
    """One answer, at the end."""

    name = "http-json"
    streams = False

    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        return await super().open(command, input, is_stream=False, **more)


# -- WebSocket -----------------------------------------------------------------------------------------


class SocketHandle(Handle):
    """A call on a socket of its own.

    Args:
        peer: The socket.
        first: Reads the first message.
    """

    def __init__(self, way: WebSocket, peer: Peer, live: LiveCall, first: asyncio.Task[bytes]) -> None:
        super().__init__(way, live.request_id, live.task_id)
        self._peer = peer
        self._first: asyncio.Task[bytes] | None = first
        self._over = False

    async def next_line(self) -> bytes | None:
        if self._over:
            return None
        first, self._first = self._first, None
        line = await (self._peer.line() if first is None else first)
        message = json.loads(line)
        if message["type"] == "pong":  # what `resume` has asked for
            return await self.next_line()
        self._over = message["type"] == "resume" or message["status"] in TERMINAL
        if self._over:
            assert await self._peer.until_pong() == []  # nothing follows
        return line if message["type"] == "task" else None

    async def drop(self, how: Departure = "fin") -> None:
        self._forget_first()
        await self._peer.leave(how)

    async def aclose(self) -> None:
        self._forget_first()
        await self._peer.__aexit__()

    def _forget_first(self) -> None:
        if self._first is not None:
            self._first.cancel()


class SocketAnswer(SocketHandle):
    """The one frame of a call that does not stream."""

    async def until(self, status: str) -> Frame:
        if status in TERMINAL:
            return await super().until(status)
        onlooker = await self.way.resume(self.request_id)
        frame = await onlooker.until(status)
        await onlooker.aclose()
        return frame


class WebSocket(Http):
    """WebSockets, one for each call; what is no call is asked over HTTP."""

    name = "websocket"
    departures = ("fin", "rst", "half", "close")

    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        correlation = f"test-{next(_correlations)}"
        opened = self.dispatcher.expect(correlation)
        peer = await Peer.open(self.address, headers=f"x-request-id: {correlation}\r\n").__aenter__()
        about = {"command": command, "input": input or {}, "is_stream": is_stream, "more_input": False}
        peer.send("command", **about, **more)
        first = self._tasks.start(peer.line(ANSWER_S))
        await asyncio.wait((opened, first), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise await self._refusal(peer, await first)
        handle = (SocketHandle if is_stream else SocketAnswer)(self, peer, opened.result(), first)
        self.handles.append(handle)
        return handle

    async def resume(self, call_id: str, after: int = -1) -> Handle:
        peer = await Peer.open(self.address).__aenter__()
        peer.send("resume", task_id=call_id, after=after)
        peer.send("ping")
        first = self._tasks.start(peer.line())
        message = json.loads(await first)
        if message.get("status") == "error" and "seq" not in message:
            raise await self._refusal(peer, await first)
        handle = SocketHandle(self, peer, self.dispatcher.find(call_id, LOCAL), first)
        self.handles.append(handle)
        return handle

    async def cancel(self, call_id: str) -> str:
        async with Peer.open(self.address) as peer:
            peer.send("cancel", task_id=call_id)
            status = (await peer.receive())["status"]
        if status == "not_found":
            raise Refused({"error": f"no task {call_id!r} is known here", "code": status}, 404, None)
        return status

    async def _refusal(self, peer: Peer, line: bytes) -> Refused:
        await peer.__aexit__()
        envelope = json.loads(line)
        after = envelope.pop("retry_after_s", None)
        status = FAULTS[ErrorCode(envelope["code"])].http
        return Refused(envelope, status, None if after is None else str(round(after)))


WAYS: tuple[type[Way], ...] = (Local, HttpJson, HttpNdjson, HttpSse, WebSocket)
