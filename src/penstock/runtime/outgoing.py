"""What one call yields, on its way to the side that asked for it: a server's child process, or a runner."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

import msgspec

from penstock.calls.inputs import InputStream
from penstock.calls.live import Live
from penstock.calls.waiting import wait_stopped
from penstock.errors import CallError, ErrorCode, LocalProtocolError, ProtocolError
from penstock.protocol.dispatch import Batch
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import End, Failure, InputTaken, Items, Message, Progress


class _Seen(msgspec.Struct):
    """What a frame of this process's own log says to the other side."""

    status: str
    data: msgspec.Raw = msgspec.Raw()


ITEM_HEAD = 5  # bytes, at most, that an item needs in a message besides its own

_read_frame = msgspec.json.Decoder(_Seen).decode


class Sender(Protocol):
    """Takes messages to the other side."""

    async def put(self, message: Message) -> None:
        """Send a message; waits while the other side is far behind."""
        ...

    def send(self, message: Message) -> None:
        """Send a short message at once."""
        ...


class Outgoing:
    """Sends what one call yields, and waits when the other side is a window behind.

    Args:
        sender: Where to.
        live: The call.
        window: Bytes of items that may be on their way.
        max_item: Bytes that an item, or the answer, may have.
    """

    def __init__(self, sender: Sender, live: Live, window: int, max_item: int) -> None:
        self._sender = sender
        self._live = live
        self._request_id = live.request_id
        self._left = window
        self._max_item = max_item
        self._moved = asyncio.Event()
        self._failure: CallError | None = None
        self._loop = asyncio.get_running_loop()
        self._taken = self._told = 0  # items of its input
        self._telling = False

    def credit(self, size: int) -> None:
        """Hear that the other side has taken ``size`` bytes."""
        self._left += size
        self._moved.set()

    def cancel(self, reason: CancelReason) -> None:
        """Cut the call short; what it still yields is dropped, as the other side takes no more of it."""
        self._live.cancel(reason)
        self._moved.set()

    def count_input(self) -> None:
        """Say from now on how many items of its input stream the call's command has taken."""
        if isinstance(self._live.inputs, InputStream):
            self._live.inputs.on_taken = self._input_taken

    def take_input(self, item: bytes | None) -> None:
        """Hand on an item of the input, or its end; one that is refused ends the call, as nobody waits there
        to be told."""
        try:
            if item is None:
                self._live.end_input()
            else:
                self._live.send(item)
        except CallError as error:
            if self._live.ending is None:
                self._fail(error)

    async def run(self) -> None:
        """Send until the call has ended and its code has stopped."""
        answer = b""
        async with self._live.reader() as reader:
            async for batch in reader:
                answer = await self._send_batch(batch.lines)
                self._forget_read(batch)
        await wait_stopped(self._live, however_long=True)
        try:
            await self._sender.put(self._end(answer))
        except LocalProtocolError as error:  # what its author says of its failure may be of any size
            failure = CallError(f"how it ended is too large to be told: {error}", ErrorCode.TOO_LARGE)
            await self._sender.put(End(request_id=self._request_id, error=Failure.of(failure)))

    def _input_taken(self) -> None:
        """Hear, in any thread, that one more was taken; all of a turn of the event loop are told at once."""
        self._taken += 1
        if not self._telling:
            self._telling = True
            with suppress(RuntimeError):  # the loop is closed, and with it the link
                self._loop.call_soon_threadsafe(self._tell_taken)

    def _tell_taken(self) -> None:
        self._telling = False
        count = self._taken - self._told
        if count:
            with suppress(ProtocolError):  # too much waits: they are told with the next
                self._sender.send(InputTaken(request_id=self._request_id, count=count))
                self._told += count

    async def _send_batch(self, lines: list[bytes]) -> bytes:
        """Send what the frames say; the answer is returned, for the end."""
        items: list[bytes] = []
        answer = b""
        for line in lines:
            frame = _read_frame(line)
            if frame.status == "streaming":
                items.append(bytes(frame.data))
            elif frame.status == "progress":
                await self._send_items(items)
                items = []
                if len(frame.data) <= self._max_item:  # notes may be dropped
                    await self._sender.put(Progress(request_id=self._request_id, about=bytes(frame.data)))
            elif frame.status == "completed":
                answer = bytes(frame.data)
        await self._send_items(items)
        return answer

    async def _send_items(self, items: list[bytes]) -> None:
        if not items or self._live.cancel_reason is not None:
            return
        size = sum(map(len, items))
        if size + ITEM_HEAD * len(items) > self._max_item:
            if len(items) == 1:
                self._refuse("an item", size)
                return
            half = len(items) // 2
            await self._send_items(items[:half])
            await self._send_items(items[half:])
            return
        await self._sender.put(Items(request_id=self._request_id, items=items))
        self._left -= size
        while self._left <= 0 and self._live.cancel_reason is None:
            self._moved.clear()
            await self._moved.wait()

    def _refuse(self, what: str, size: int) -> None:
        text = f"{what} has {size} bytes; at most {self._max_item} leave a process"
        self._fail(CallError(text, ErrorCode.TOO_LARGE))

    def _fail(self, error: CallError) -> None:
        self._failure = error
        self._live.cancel(CancelReason.CALLER)
        self._moved.set()

    def _forget_read(self, batch: Batch) -> None:
        log = self._live.log
        if log.ending is None:
            log.trim(log.size - log.position(batch.first_seq + len(batch.lines) - 1))

    def _end(self, answer: bytes) -> End:
        if len(answer) > self._max_item:
            self._refuse("the answer", len(answer))
        ending, reason, cut = self._live.ending, self._live.cancel_reason, self._live.cut
        error = self._failure or (None if ending is None or reason is not None else ending.error)
        if error is not None:
            answer, reason = b"", None
        return End(
            request_id=self._request_id,
            answer=answer or None,
            error=None if error is None else Failure.of(error),
            reason=reason,
            report=self._live.engine_report,
            confirmed=cut is not None and cut.confirmed_at is not None,
        )
