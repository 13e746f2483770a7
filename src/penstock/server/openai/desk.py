"""What the routes under `/v1/` that run models have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from penstock.calls.tasks import TaskOwner
from penstock.protocol.dispatch import Description, Dispatcher
from penstock.server.exchange import Exchange
from penstock.server.keepalive import KeepAlive
from penstock.server.once import Once
from penstock.server.openai.transport import Endpoint, Transport


class Received(NamedTuple):
    """A request, and the models that there were when it came."""

    body: bytes
    described: Description


@dataclass(frozen=True)
class Desk:
    """Takes requests in.

    Attributes:
        dispatcher: Whose models they are.
        once: Opens the calls.
        keepalive: Looks after silent streams.
        tasks: Owns what must run beside a request.
    """

    dispatcher: Dispatcher
    once: Once
    keepalive: KeepAlive
    tasks: TaskOwner

    async def received(self, exchange: Exchange) -> Received:
        """Return the request.

        Raises:
            CallError: Its body is not JSON, or too large.
        """
        return Received(await exchange.json_body(), await self.dispatcher.describe())

    async def handed_on(self, exchange: Exchange, received: Received, endpoint: Endpoint) -> bool:
        """Have a request answered by a model that takes it as it is; returns whether there is one.

        Raises:
            CallError: That model refused it, or failed.
        """
        transport = Transport(self.once, self.keepalive)
        return await transport.answered(exchange, received.body, received.described, endpoint)
