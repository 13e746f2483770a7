"""What is served, for machines: `/openapi.json` and `/asyncapi.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from penstock.protocol.dispatch import Dispatcher
from penstock.server.asyncapi.document import async_document
from penstock.server.exchange import Exchange
from penstock.server.openapi.document import document


class ContractRoutes:
    """The two documents.

    Args:
        dispatcher: Says what is served.
        routes: Method and path of each route that the documents have, once they are known.
        sockets: Paths of the WebSockets.
        needs_key: Whether who asks needs a key.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        routes: Callable[[], Iterable[tuple[str, str]]],
        sockets: Iterable[str],
        *,
        needs_key: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._routes = routes
        self._sockets = tuple(sockets)
        self._needs_key = needs_key

    async def openapi(self, exchange: Exchange) -> None:
        """`GET /openapi.json`."""
        described = await self._dispatcher.describe()
        shown = document(described, self._routes(), needs_key=self._needs_key)
        await exchange.reply(200, msgspec.json.encode(shown))

    async def asyncapi(self, exchange: Exchange) -> None:
        """`GET /asyncapi.json`."""
        shown = async_document(
            await self._dispatcher.describe(),
            self._sockets,
            host=exchange.header(b"host"),
            is_secure=exchange.scope.get("scheme") == "https",
            needs_key=self._needs_key,
        )
        await exchange.reply(200, msgspec.json.encode(shown))
