"""The in-process transport: straight to a dispatcher, on the frames' own bytes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import msgspec

from penstock.client.request import no_key
from penstock.client.transport import Asked, Offer, Reply, ServerHealth, Task
from penstock.errors import StreamTruncated
from penstock.protocol.dispatch import (
    LOCAL,
    Caller,
    CancelOutcome,
    Dispatcher,
    FrameReader,
    LiveCall,
    TaskRecord,
)
from penstock.protocol.messages import CancelReason, Frame, decode_frame


class LocalReply:
    """A reader of a live call, giving frames; ``penstock.client.transport.Reply``."""

    def __init__(
        self, live: LiveCall, context: AbstractAsyncContextManager[FrameReader], reader: FrameReader
    ) -> None:
        self._live = live
        self._context = context
        self._reader = reader

    @classmethod
    async def attach(cls, live: LiveCall, after: int = -1) -> LocalReply:
        """Read ``live`` behind frame ``after``."""
        context = live.reader(after)
        return cls(live, context, await context.__aenter__())

    async def __anext__(self) -> list[Frame]:
        return [decode_frame(line) for line in (await self._reader.__anext__()).lines]

    async def send(self, item: bytes) -> None:
        """See ``Reply.send``."""
        self._live.send(item)

    async def end_input(self) -> None:
        """See ``Reply.end_input``."""
        self._live.end_input()

    async def aclose(self) -> None:
        await self._context.__aexit__(None, None, None)


class LocalTransport:
    """Runs calls on a dispatcher in this process.

    Args:
        dispatcher: It stays the caller's own: closing this transport does not stop it.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def run(self, asked: Asked) -> Frame:
        """See ``Transport.run``."""
        live = await self._open(asked)
        async with live.reader() as reader:
            async for batch in reader:
                if batch.ending is not None:
                    return decode_frame(batch.lines[-1])
        raise StreamTruncated(f"the reader of {live.task_id} was closed before the call ended")

    async def open(self, asked: Asked) -> Reply:
        """See ``Transport.open``."""
        return await LocalReply.attach(await self._open(asked))

    async def resume(self, call_id: str, after: int, correlation_id: str) -> Reply:
        """See ``Transport.resume``."""
        return await LocalReply.attach(self._dispatcher.find(call_id, LOCAL), after)

    async def cancel(self, task_id: str) -> CancelOutcome:
        """See ``Transport.cancel``."""
        return await self._dispatcher.cancel(task_id, CancelReason.CALLER, LOCAL)

    async def task(self, task_id: str) -> Task:
        """See ``Transport.task``."""
        return _plain(self._dispatcher.find(task_id, LOCAL).record())

    async def tasks(self) -> list[Task]:
        """See ``Transport.tasks``."""
        return [_plain(record) for record in self._dispatcher.tasks(LOCAL)]

    async def offer(self) -> Offer:
        """See ``Transport.offer``."""
        described = await self._dispatcher.describe()
        return Offer(described.commands, described.workflows)

    async def health(self) -> ServerHealth:
        """See ``Transport.health``."""
        return msgspec.convert(await self._dispatcher.health(), ServerHealth, from_attributes=True)

    async def aclose(self) -> None:
        """See ``Transport.aclose``."""

    async def _open(self, asked: Asked) -> LiveCall:
        if asked.idempotency_key is not None:
            raise no_key()
        return await self._dispatcher.open(
            asked.start, Caller(admin=True, correlation_id=asked.correlation_id)
        )


def _plain(record: TaskRecord) -> Task:
    return msgspec.json.decode(msgspec.json.encode(record), type=Task)
