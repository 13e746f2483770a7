"""The transports, for threads: each request, and each batch of frames, is one trip to the loop and back."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any

from penstock.client.blocking.portal import Portal
from penstock.client.reaching import reach
from penstock.client.transport import Asked, Offer, Reply, ServerHealth, Task, Transport
from penstock.errors import LocalProtocolError
from penstock.protocol.dispatch import CancelOutcome, Dispatcher
from penstock.protocol.messages import Frame


class BlockingReply:
    """What ``penstock.client.transport.Reply`` is, for threads."""

    def __init__(self, portal: Portal, reply: Reply) -> None:
        self._portal = portal
        self.reply = reply

    def __next__(self) -> list[Frame]:
        try:
            return self._portal.call(self.reply.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def send(self, item: bytes) -> None:
        """See ``Reply.send``."""
        self._portal.call(self.reply.send, item)

    def end_input(self) -> None:
        """See ``Reply.end_input``."""
        self._portal.call(self.reply.end_input)

    def close(self) -> None:
        """See ``Reply.aclose``."""
        with suppress(LocalProtocolError):  # the client was closed, and every connection with it
            self._portal.call(self.reply.aclose)

    def finish(self, read_end: Callable[[Reply], Awaitable[list[Frame]]]) -> list[Frame]:
        """Read to the end of the response as ``read_end`` does."""
        return self._portal.call(read_end, self.reply)

    def close_soon(self) -> None:
        """Leave, and do not wait for it."""
        self._portal.start(self._leave)

    async def _leave(self) -> None:
        await self.reply.aclose()


class BlockingTransport:
    """What ``penstock.client.transport.Transport`` is, for threads, and for any number of them."""

    def __init__(self, transport: Transport, app: Dispatcher | None) -> None:
        self._transport = transport
        self._portal = portal = Portal()
        opened = AsyncExitStack()
        opened.push_async_callback(transport.aclose)
        # Streams have this object, so a client that is forgotten ends when the last of them is.
        self._end = weakref.finalize(self, portal.close, opened.aclose)
        try:
            portal.call(_enter, app, opened)
        except BaseException:
            self._end()
            raise

    def run(self, asked: Asked) -> Frame:
        """See ``Transport.run``."""
        return self._portal.call(self._transport.run, asked)

    def open(self, asked: Asked) -> BlockingReply:
        """See ``Transport.open``."""
        return BlockingReply(self._portal, self._portal.call(self._transport.open, asked))

    def resume(self, call_id: str, after: int, correlation_id: str) -> BlockingReply:
        """See ``Transport.resume``."""
        reply = self._portal.call(self._transport.resume, call_id, after, correlation_id)
        return BlockingReply(self._portal, reply)

    def cancel(self, task_id: str) -> CancelOutcome:
        """See ``Transport.cancel``."""
        return self._portal.call(self._transport.cancel, task_id)

    def task(self, task_id: str) -> Task:
        """See ``Transport.task``."""
        return self._portal.call(self._transport.task, task_id)

    def tasks(self) -> list[Task]:
        """See ``Transport.tasks``."""
        return self._portal.call(self._transport.tasks)

    def offer(self) -> Offer:
        """See ``Transport.offer``."""
        return self._portal.call(self._transport.offer)

    def health(self) -> ServerHealth:
        """See ``Transport.health``."""
        return self._portal.call(self._transport.health)

    def close(self) -> None:
        """See ``Transport.aclose``."""
        self._end()


async def _enter(app: Dispatcher | None, opened: AsyncExitStack) -> None:
    if app is None:
        return
    if (await app.health()).status != "starting":
        raise LocalProtocolError("it runs on another thread already; use AsyncClient there")
    if isinstance(app, AbstractAsyncContextManager):
        await opened.enter_async_context(app)


def reach_blocking(target: str | Dispatcher, **options: Any) -> BlockingTransport:
    """Return the way to ``target`` for threads; what runs in this process is started, and is stopped with the
    client.  For arguments and errors see ``reach``."""
    return BlockingTransport(reach(target, **options), None if isinstance(target, str) else target)
