"""WebSocket: many calls on one socket, multiplexed by task id (WIRE.md section 3).

The read loop waits for nothing but the socket; every call has a pump of its own, and one writer joins what
they have into one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import anyio
import msgspec

from penstock.calls.tasks import TaskOwner
from penstock.errors import FAULTS, CallError, ErrorCode
from penstock.protocol.dispatch import Caller, Dispatcher, FrameReader, LiveCall
from penstock.protocol.messages import CancelReason, Start, WireForm, error_envelope
from penstock.protocol.requests import (
    BadMessage,
    CancelMessage,
    CommandMessage,
    DetachMessage,
    InputEndMessage,
    InputMessage,
    Message,
    PingMessage,
    ResumeMessage,
    TaskMessage,
    WorkflowMessage,
    read_message,
)
from penstock.server.batching import BATCH_EXTENSION, BATCH_MESSAGE
from penstock.server.exchange import Receive, Send, correlation_id
from penstock.server.outbox import Outbox, SocketGone

MAX_CALLS = 256  # calls that are read on one socket at a time
CLOSE_S = 5.0  # how long a peer may take to fetch what is left for it when the server stops
BURST = 8  # messages that are handled before others get a turn
MAX_CORRELATION = 128  # characters of a message's correlation id

_log = logging.getLogger("penstock.server")


class Pumped(NamedTuple):
    """A call that is read on this socket."""

    live: LiveCall
    reader: FrameReader


class Socket:
    """One WebSocket connection.

    Args:
        dispatcher: What runs the calls.
        caller: Who is connected.
        wall: Unix seconds, for error frames.
        send: Of the ASGI connection.
        extensions: What the ASGI server offers.
        still: Whether the caller may still speak.
        refused: Told of each message, or reader, that is refused.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        caller: Caller,
        wall: Callable[[], float],
        send: Send,
        extensions: MutableMapping[str, Any],
        still: Callable[[], bool] = lambda: True,
        refused: Callable[[CallError], None] = lambda _: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._caller = caller
        self._wall = wall
        self._send = send
        self._still = still
        self._refused = refused
        self._pumps = TaskOwner()
        self._writing = TaskOwner()
        self._pumped: set[Pumped] = set()
        self._outbox = Outbox(_writer(send, extensions), self._writing)

    async def serve(self, receive: Receive, subprotocol: str | None = None) -> None:
        """Answer messages until the peer has gone; its calls then follow their disconnect policies.

        Args:
            receive: Of the ASGI connection.
            subprotocol: The one that the connection is accepted with.
        """
        await receive()
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})
        try:
            await self._read(receive)
        except SocketGone:
            pass
        except Exception:  # noqa: BLE001 - the top of a connection: a bug of ours ends this socket only
            _log.exception("a WebSocket connection failed; it is closed")
            await self._close(ErrorCode.INTERNAL, "internal error")
        finally:
            for pumped in tuple(self._pumped):
                pumped.reader.close()
            await self._pumps.aclose()
            await self._writing.aclose()

    async def finish(self) -> None:
        """Close the socket behind the last frames of its calls, which have ended: the server stops."""
        with anyio.move_on_after(CLOSE_S):
            await self._pumps.settle(CLOSE_S)
            await self._writing.settle(CLOSE_S)
            await self._close(ErrorCode.UNAVAILABLE, "the server is stopping")

    async def _close(self, code: ErrorCode, reason: str) -> None:
        # Servers tell in their own ways that it is closed already.
        with contextlib.suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": FAULTS[code].ws_close, "reason": reason})

    # -- messages ------------------------------------------------------------------------------------

    async def _read(self, receive: Receive) -> None:
        burst = 0
        while (event := await receive())["type"] == "websocket.receive":
            text = event.get("text")
            await self._take(event["bytes"] if text is None else text)
            burst += 1
            if burst % BURST == 0:  # a server hands out what it has without a pause
                await asyncio.sleep(0)

    async def _take(self, text: str | bytes) -> None:
        """Act on one message; what is wrong with it is answered, and the socket stays.

        Raises:
            SocketGone: The key with which it was opened is good no longer; it is closed.
        """
        if not self._still():
            await self._close(ErrorCode.UNAUTHENTICATED, "the key is good no longer")
            raise SocketGone
        task_id: str | None = None
        try:
            message = _understand(text)
            task_id = getattr(message, "task_id", None)
            await _HANDLERS[type(message)](self, message)
        except BadMessage as error:
            await self._refuse(error, error.task_id)
        except CallError as error:
            await self._refuse(error, task_id)

    async def _refuse(self, error: CallError, task_id: str | None) -> None:
        self._refused(error)
        await self._outbox.put([error_envelope(error, self._wall(), task_id=task_id)])

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self._outbox.put([msgspec.json.encode({"type": kind, **fields})])

    async def _task(self, message: TaskMessage) -> None:
        await self._open(message.start(WireForm.V1, more_input=message.more_input), message.correlation_id)

    async def _command(self, message: CommandMessage) -> None:
        start = message.start(WireForm.V2, command=message.named(), more_input=message.more_input)
        await self._open(start, message.correlation_id)

    async def _workflow(self, message: WorkflowMessage) -> None:
        await self._open(message.start(WireForm.V2, workflow_id=message.named()), message.correlation_id)

    async def _resume(self, message: ResumeMessage) -> None:
        self._check_room()
        live = self._dispatcher.find(message.task_id, self._caller)
        await self._pump(live, message.after, answer_only=False)

    async def _detach(self, message: DetachMessage) -> None:
        for pumped in tuple(self._pumped):
            if message.task_id in (pumped.live.task_id, pumped.live.request_id):
                self._pumped.discard(pumped)
                pumped.reader.close()
        # What a pump still holds has its turn in the outbox before this.
        await self._tell("detach", status="detached", task_id=message.task_id)

    async def _cancel(self, message: CancelMessage) -> None:
        status, told = "not_found", False
        try:
            live = self._dispatcher.find(message.task_id, self._caller)
            # A call that is read here answers for itself, by its own terminal frame.
            told = any(pumped.live.request_id == live.request_id for pumped in self._pumped)
            status = live.cancel(CancelReason.CALLER)
        except CallError:
            pass
        if status != "cancelled" or not told:
            await self._tell("cancel", status=status, task_id=message.task_id)

    async def _input(self, message: InputMessage) -> None:
        self._dispatcher.find(message.task_id, self._caller).send(bytes(message.data))

    async def _input_end(self, message: InputEndMessage) -> None:
        self._dispatcher.find(message.task_id, self._caller).end_input()

    async def _ping(self, message: PingMessage) -> None:
        await self._tell("pong", timestamp=round(self._wall(), 3))

    # -- calls ---------------------------------------------------------------------------------------

    async def _open(self, start: Start, correlation: str | None) -> None:
        self._check_room()
        caller = self._caller
        if correlation is not None:
            own = correlation_id(correlation, MAX_CORRELATION)
            caller = msgspec.structs.replace(caller, correlation_id=own)
        live = await self._dispatcher.open(start, caller)
        # An answer stands alone; a stream begins with `accepted`.
        await self._pump(live, -1 if start.is_stream else 0, answer_only=not start.is_stream)

    def _check_room(self) -> None:
        if len(self._pumped) >= MAX_CALLS:
            raise CallError(
                f"{MAX_CALLS} calls are in flight on this socket; wait for one, or open another socket",
                ErrorCode.RESOURCE_EXHAUSTED,
                retry_after_s=1,
            )

    async def _pump(self, live: LiveCall, after: int, *, answer_only: bool) -> None:
        # Attached here and not in the pump, which may be cancelled before it ever runs.
        pumped = Pumped(live, await live.reader(after).__aenter__())
        self._pumped.add(pumped)
        self._pumps.start(self._run_pump(pumped, answer_only))
        await asyncio.sleep(0)  # so that `accepted` comes before what the next message is answered

    async def _run_pump(self, pumped: Pumped, answer_only: bool) -> None:
        try:
            await self._carry(pumped, answer_only)
        except SocketGone:
            pass
        except Exception:  # noqa: BLE001 - the top of a task: nobody else would tell the peer
            _log.exception("a WebSocket connection failed; it is closed")
            await self._close(ErrorCode.INTERNAL, "internal error")
        finally:
            pumped.reader.close()
            self._pumped.discard(pumped)

    async def _carry(self, pumped: Pumped, answer_only: bool) -> None:
        try:
            async for batch in pumped.reader:
                if not answer_only:
                    await self._outbox.put(batch.lines)
                elif batch.ending is not None:
                    await self._outbox.put(batch.lines[-1:])
                if batch.ending is not None:
                    return
            if pumped in self._pumped:  # not detached, but resumed behind the terminal frame
                await self._tell("resume", status="already_finished", task_id=pumped.live.task_id)
        except CallError as error:  # the log was trimmed past this reader
            await self._refuse(error, pumped.live.task_id)


def _understand(text: str | bytes) -> Message:
    if isinstance(text, bytes):
        raise BadMessage("binary messages are not understood; send JSON as text", None)
    return read_message(text)


def _writer(send: Send, extensions: MutableMapping[str, Any]) -> Callable[[Sequence[bytes]], Any]:
    """Return what writes lines: together where the server can, else one by one."""

    async def write_batch(lines: Sequence[bytes]) -> None:
        await send({"type": BATCH_MESSAGE, "lines": lines})

    async def write_each(lines: Sequence[bytes]) -> None:
        for line in lines:
            await send({"type": "websocket.send", "text": line.decode()})

    return write_batch if BATCH_EXTENSION in extensions else write_each


# Not functools.singledispatchmethod: some releases of Python keep every object it was used on.
_HANDLERS: Mapping[type, Callable[[Socket, Any], Awaitable[None]]] = {
    TaskMessage: Socket._task,
    CommandMessage: Socket._command,
    WorkflowMessage: Socket._workflow,
    ResumeMessage: Socket._resume,
    DetachMessage: Socket._detach,
    CancelMessage: Socket._cancel,
    InputMessage: Socket._input,
    InputEndMessage: Socket._input_end,
    PingMessage: Socket._ping,
}
