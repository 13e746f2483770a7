"""WebSockets, on real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from behaviour.over_http import Http, correlations
from behaviour.raw_http import WAIT_S, Departure
from behaviour.way import ANSWER_S, TERMINAL, Frame, Handle, Refused
from penstock.errors import FAULTS, ErrorCode
from penstock.protocol.dispatch import LiveCall
from server.peer import Peer


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
        correlation = f"test-{next(correlations)}"
        opened = self.dispatcher.expect(correlation)
        peer = await self._dial(f"x-request-id: {correlation}\r\n")
        about = {"command": command, "input": input or {}, "is_stream": is_stream, "more_input": False}
        peer.send("workflow" if "workflow_id" in more else "command", **about, **more)
        first = self._tasks.start(peer.line(ANSWER_S))
        await asyncio.wait((opened, first), timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            raise await self._refusal(peer, await first)
        handle = (SocketHandle if is_stream else SocketAnswer)(self, peer, opened.result(), first)
        self.handles.append(handle)
        return handle

    async def resume(self, call_id: str, after: int = -1) -> Handle:
        peer = await self._dial()
        peer.send("resume", task_id=call_id, after=after)
        peer.send("ping")
        first = self._tasks.start(peer.line())
        message = json.loads(await first)
        if message.get("status") == "error" and "seq" not in message:
            raise await self._refusal(peer, await first)
        handle = SocketHandle(self, peer, self.dispatcher.find(call_id, self.caller), first)
        self.handles.append(handle)
        return handle

    async def cancel(self, call_id: str) -> str:
        peer = await self._dial()
        peer.send("cancel", task_id=call_id)
        status = (await peer.receive())["status"]
        await peer.__aexit__()
        if status == "not_found":
            raise Refused({"error": f"no task {call_id!r} is known here", "code": status}, 404, None)
        return status

    async def _dial(self, headers: str = "") -> Peer:
        headers += "".join(f"{name}: {value}\r\n" for name, value in self.credentials.items())
        return await Peer.open(self.address, headers=headers).__aenter__()

    async def _refusal(self, peer: Peer, line: bytes) -> Refused:
        await peer.__aexit__()
        envelope = json.loads(line)
        after = envelope.pop("retry_after_s", None)
        status = FAULTS[ErrorCode(envelope["code"])].http
        return Refused(envelope, status, None if after is None else str(round(after)))
