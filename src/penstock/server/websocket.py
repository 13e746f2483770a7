"""WebSocket: many calls on one socket, multiplexed by task id (WIRE.md section 3).

The read loop waits for nothing but the socket; every call has a pump of its own, and one writer joins what
they have into one write.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import singledispatchmethod
from typing import Any

import msgspec

from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Caller, Dispatcher, LiveCall
from penstock.protocol.messages import CancelReason, Start, WireForm, error_envelope
from penstock.protocol.requests import (
    BadMessage,
    CancelMessage,
    CommandMessage,
    InputEndMessage,
    InputMessage,
    Message,
    PingMessage,
    ResumeMessage,
    TaskMessage,
    read_message,
)
from penstock.server.batching import BATCH_EXTENSION, BATCH_MESSAGE
from penstock.server.exchange import Receive, Send
from penstock.server.outbox import Outbox

MAX_CALLS = 256  # calls one socket may have in flight


class Socket:
    """One WebSocket connection.

    Args:
        dispatcher: What runs the calls.
        caller: Who is connected.
        wall: Unix seconds, for error frames.
    """

    def __init__(self, dispatcher: Dispatcher, caller: Caller, wall: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._caller = caller
        self._wall = wall
        self._pumps = TaskOwner()
        self._reading: dict[str, int] = {}  # request ids of calls pumped here, and how often

    async def serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer messages until the peer has gone; its calls then follow their disconnect policies."""
        await receive()
        await send({"type": "websocket.accept"})
        self._outbox = Outbox(_writer(scope, send))
        reading = self._pumps.start(self._read(receive), name="reading")
        writing = self._pumps.start(self._write(), name="writing")
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._pumps.aclose()

    async def _write(self) -> None:
        with contextlib.suppress(OSError):  # what ASGI servers raise once the peer has gone
            await self._outbox.run()

    async def _read(self, receive: Receive) -> None:
        while (event := await receive())["type"] == "websocket.receive":
            text = event.get("text")
            await self._take(event["bytes"] if text is None else text)

    async def _take(self, text: str | bytes) -> None:
        """Act on one message; what is wrong with it is answered, and the socket stays."""
        task_id: str | None = None
        try:
            message = self._understand(text)
            task_id = getattr(message, "task_id", None)
            await self._handle(message)
        except BadMessage as error:
            await self._refuse(error, error.task_id)
        except CallError as error:
            await self._refuse(error, task_id)

    def _understand(self, text: str | bytes) -> Message:
        if isinstance(text, bytes):
            raise BadMessage("binary messages are not understood; send JSON as text", None)
        return read_message(text)

    async def _refuse(self, error: CallError, task_id: str | None) -> None:
        await self._outbox.put([error_envelope(error, self._wall(), task_id=task_id)])

    # -- messages ------------------------------------------------------------------------------------

    @singledispatchmethod
    async def _handle(self, message: Any) -> None:
        raise AssertionError(message)

    @_handle.register
    async def _task(self, message: TaskMessage) -> None:
        await self._open(message.start(WireForm.V1, more_input=True))

    @_handle.register
    async def _command(self, message: CommandMessage) -> None:
        await self._open(message.start(WireForm.V2, command=message.named(), more_input=True))

    @_handle.register
    async def _resume(self, message: ResumeMessage) -> None:
        live = self._dispatcher.find(message.task_id, self._caller)
        self._pump(live, message.after, answer_only=False)

    @_handle.register
    async def _cancel(self, message: CancelMessage) -> None:
        status = "not_found"
        try:
            live = self._dispatcher.find(message.task_id, self._caller)
            status = live.cancel(CancelReason.CALLER)
        except CallError:
            live = None
        # A call that is read here answers for itself, by its own terminal frame.
        if status != "cancelled" or live is None or live.request_id not in self._reading:
            answer = {"type": "cancel", "status": status, "task_id": message.task_id}
            await self._outbox.put([msgspec.json.encode(answer)])

    @_handle.register
    async def _input(self, message: InputMessage) -> None:
        self._dispatcher.find(message.task_id, self._caller).send(bytes(message.data))

    @_handle.register
    async def _input_end(self, message: InputEndMessage) -> None:
        self._dispatcher.find(message.task_id, self._caller).end_input()

    @_handle.register
    async def _ping(self, message: PingMessage) -> None:
        pong = {"type": "pong", "timestamp": round(self._wall(), 3)}
        await self._outbox.put([msgspec.json.encode(pong)])

    # -- calls ---------------------------------------------------------------------------------------

    async def _open(self, start: Start) -> None:
        self._check_room()
        live = await self._dispatcher.open(start, self._caller)
        self._pump(live, -1, answer_only=not start.is_stream)

    def _check_room(self) -> None:
        if len(self._reading) >= MAX_CALLS:
            raise CallError(
                f"{MAX_CALLS} calls are in flight on this socket; wait for one, or open another socket",
                ErrorCode.RESOURCE_EXHAUSTED,
                retry_after_s=1,
            )

    def _pump(self, live: LiveCall, after: int, *, answer_only: bool) -> None:
        reader = live.reader(after)
        self._reading[live.request_id] = self._reading.get(live.request_id, 0) + 1
        self._pumps.start(self._run_pump(live, reader, answer_only))

    async def _run_pump(self, live: LiveCall, reader: Any, answer_only: bool) -> None:
        try:
            async with reader:
                async for batch in reader:
                    if not answer_only:
                        await self._outbox.put(batch.lines)
                    elif batch.ending is not None:
                        await self._outbox.put(batch.lines[-1:])
        except CallError as error:  # the log was trimmed past this reader
            await self._refuse(error, live.task_id)
        finally:
            self._forget(live.request_id)

    def _forget(self, request_id: str) -> None:
        self._reading[request_id] -= 1
        if not self._reading[request_id]:
            del self._reading[request_id]


def _writer(scope: dict[str, Any], send: Send) -> Callable[[Sequence[bytes]], Any]:
    """Return what writes lines: together where the server can, else one by one."""

    async def write_batch(lines: Sequence[bytes]) -> None:
        await send({"type": BATCH_MESSAGE, "lines": lines})

    async def write_each(lines: Sequence[bytes]) -> None:
        for line in lines:
            await send({"type": "websocket.send", "text": line.decode()})

    return write_batch if BATCH_EXTENSION in scope.get("extensions", {}) else write_each
