"""The engine that every adapter for an HTTP server is: it drives the request, the adapter reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

import anyio
from typing_extensions import NamedTuple

from penstock.engines.base import Engine, refuse_invalid
from penstock.engines.upstream.exchange import Exchange
from penstock.engines.upstream.patience import Deadlines
from penstock.engines.upstream.reading import Reading
from penstock.engines.upstream.upstream import Send, Upstream
from penstock.errors import CallError
from penstock.protocol.events import EngineEvent, EngineRequest

T = TypeVar("T")


# typing's own cannot be generic before Python 3.11.
class Question(NamedTuple, Generic[T]):
    """How a request is sent, and how its answer is read."""

    send: Send[T]
    reading: Reading


class UpstreamEngine(Engine, Generic[T]):
    """An engine on a server: an adapter sets ``upstream`` and says in ``question`` what is asked."""

    upstream: Upstream[T]

    @abstractmethod
    async def question(self, request: EngineRequest, deadlines: Deadlines) -> Question[T]:
        """Say how a request is sent and read; its values are valid as of ``refuse_invalid``.

        Args:
            deadlines: ``deadlines.remaining()`` is what the call has left, for a server that takes a time.

        Raises:
            CallError: The server cannot serve it.
        """

    async def call_off(self, request: EngineRequest) -> bool:
        """Tell the server that an answer is no longer wanted; its connection is closed already.

        Asked when an answer was left before the server said its last; never after that, and never for a
        request that was not sent or was refused.  It is shielded, and has ``patience.close_s`` seconds.

        Returns:
            Whether the server is known to have stopped; here true, for servers that stop when their
            connection closes.

        Raises:
            CallError: It could not be told; that is logged, and harms nobody.
        """
        return True

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Answer one request; beyond ``capacity`` it waits for its turn.

        Raises:
            CallError: The request is invalid or was refused, the server does not answer, or time ran out.
        """
        refuse_invalid(request)
        exchange = Exchange(self.upstream)
        told_all = False
        try:
            send, reading = await exchange.within(lambda: self.question(request, exchange.deadlines))
            try:
                await exchange.open(send)
                while not reading.over and (batch := await exchange.take()):
                    for told in batch:
                        for event in reading.read(told):
                            yield event
                    exchange.deadlines.flowing = reading.flowing
                if reading.over:
                    await exchange.finish()
                end = reading.end()
            except CallError as error:
                # What follows the reason of the end is counts only.
                end = reading.failed(error) if reading.finish_reason is None else reading.end()
            finally:
                told_all = reading.over
            yield end
        finally:
            await self._leave(exchange, request, told_all)

    async def _leave(self, exchange: Exchange[T], request: EngineRequest, told_all: bool) -> None:
        if told_all:  # there is nothing to stop
            with anyio.CancelScope(shield=True):
                await exchange.close()
            exchange.confirm()
        else:
            await self.upstream.tasks.finish(self._stop(exchange, request), name=f"stop {self.engine_id}")

    async def _stop(self, exchange: Exchange[T], request: EngineRequest) -> None:
        await exchange.close()
        if not exchange.over:
            with anyio.move_on_after(self.upstream.patience.close_s):
                exchange.over = await self._called_off(request)
        if exchange.over:
            exchange.confirm()

    async def _called_off(self, request: EngineRequest) -> bool:
        try:
            return await self.call_off(request)
        except CallError as error:
            self.upstream.could_not_stop(error)
            return False

    async def aclose(self) -> None:
        """Cut what is in flight and close the connections."""
        await self.upstream.aclose()

    def close(self) -> None:
        """Cut what is in flight and close the connections.

        A call in flight ends with ``unavailable``.
        """
        self.upstream.close()
