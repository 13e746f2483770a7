"""HTTP, on a real socket.  JSON shows only the terminal frame, by design; ``until`` then looks at the log."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from itertools import count
from typing import Any

from behaviour.raw_http import WAIT_S, Address, Connection, Departure, Reply
from behaviour.seam import Watched
from behaviour.way import ANSWER_S, TERMINAL, Frame, Handle, Refused, Way
from penstock.calls.tasks import TaskOwner
from penstock.protocol.dispatch import LiveCall

correlations = count(1)


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
        correlation = f"test-{next(correlations)}"
        opened = self.dispatcher.expect(correlation)
        connection = await Connection.open(self.address)
        headers = {**headers, **self.credentials, "x-request-id": correlation}
        path = "/v2/workflow" if "workflow_id" in body else "/v2/execute"
        connection.request("POST", path, json.dumps(body).encode(), headers)
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
        headers = {"accept": self.accept, **self.credentials}
        connection.request("GET", f"/tasks/{call_id}/events?after={after}", headers=headers)
        head = await connection.head()
        if head.status != 200:
            raise await self._refused(connection, Reply(*head, await connection.body()))
        live = self.dispatcher.find(call_id, self.caller)
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
            connection.request(method, path, body, {**self.credentials, **(headers or {})})
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
