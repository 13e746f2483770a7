"""The routes under `/v1/`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Dispatcher
from penstock.server.exchange import Exchange
from penstock.server.keepalive import KeepAlive
from penstock.server.once import Once
from penstock.server.openai.desk import Desk
from penstock.server.openai.embeddings import EmbeddingRoutes
from penstock.server.openai.models import Model, models_of
from penstock.server.openai.responses import ResponseRoutes
from penstock.server.openai.texts import TextRoutes

Handler = Callable[..., Awaitable[None]]


class OpenAIRoutes:
    """Answers OpenAI's clients.

    Args:
        dispatcher: Whose models they are.
        once: Opens the calls.
        keepalive: Looks after silent streams.
        tasks: Owns what must run beside a request.
    """

    def __init__(self, dispatcher: Dispatcher, once: Once, keepalive: KeepAlive, tasks: TaskOwner) -> None:
        self._dispatcher = dispatcher
        desk = Desk(dispatcher, once, keepalive, tasks)
        self._texts = TextRoutes(desk)
        self._responses = ResponseRoutes(desk)
        self._embeddings = EmbeddingRoutes(desk)

    def table(self) -> Mapping[str, Mapping[str, Handler]]:
        """Return what answers, by path and method."""
        return {
            "/v1/models": {"GET": self.models},
            "/v1/models/{id}": {"GET": self.model},
            "/v1/chat/completions": {"POST": self._texts.chat},
            "/v1/completions": {"POST": self._texts.complete},
            "/v1/embeddings": {"POST": self._embeddings.create},
            "/v1/responses": {"POST": self._responses.create},
        }

    async def models(self, exchange: Exchange) -> None:
        """`GET /v1/models`: what can be asked."""
        found = {model.id: model for model in models_of(await self._dispatcher.describe())}
        data = [_shown(model, exchange.wall()) for model in found.values()]
        await exchange.reply(200, msgspec.json.encode({"object": "list", "data": data}))

    async def model(self, exchange: Exchange, name: str) -> None:
        """`GET /v1/models/{id}`: one of them."""
        models = models_of(await self._dispatcher.describe())
        found = next((model for model in models if model.id == name), None)
        if found is None:
            raise CallError(f"there is no model {name[:100]!r}", ErrorCode.NOT_FOUND)
        await exchange.reply(200, msgspec.json.encode(_shown(found, exchange.wall())))


def _shown(model: Model, now: float) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": int(now), "owned_by": "penstock"}
