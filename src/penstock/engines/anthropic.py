"""Anthropic's models: ``anthropic:claude-opus-4-8``.

The request is made by the official client (extra ``anthropic``), the answer is read here.  It is always
streamed, as only a stream can be cancelled: closing its connection is what stops the model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock.engines.anthropic_asking import asked_of
from penstock.engines.anthropic_reading import AnthropicReading
from penstock.engines.upstream.address import Options, Server
from penstock.engines.upstream.engine import Question, UpstreamEngine
from penstock.engines.upstream.patience import Deadlines
from penstock.engines.upstream.upstream import Upstream
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineRequest

if TYPE_CHECKING:
    import httpx

_HOSTED = "https://api.anthropic.com"
_CAPACITY = 64


class AnthropicEngine(UpstreamEngine[Any]):
    """A model of Anthropic's.

    Args:
        server: Where, which model, with what key.

    Raises:
        CallError: ``unavailable``: the package ``anthropic`` is not installed.
    """

    def __init__(self, server: Server) -> None:
        self._library = _library()
        self._server = server
        self.model = server.model or ""
        self.engine_id = f"anthropic:{self.model}"
        self.capacity = server.capacity
        self.upstream = Upstream(
            self.engine_id,
            server.url,
            self._client,
            capacity=server.capacity,
            patience=server.patience,
            library="httpx2",
            secrets=(server.key,) if server.key else (),
            sdk_errors=(self._library.AnthropicError,),
        )

    async def question(self, request: EngineRequest, deadlines: Deadlines) -> Question[Any]:
        """See ``UpstreamEngine.question``."""
        asked = asked_of(request)
        fields = dict(asked.fields)
        required = {"max_tokens": fields.pop("max_tokens"), "messages": fields.pop("messages")}

        async def send(client: Any) -> object:
            return await client.messages.with_raw_response.create(
                model=self.model, stream=True, **required, extra_body=fields, extra_headers=asked.headers
            )

        return Question(send, AnthropicReading(request, self.engine_id, self.upstream.secrets))

    def _client(self, http: httpx.AsyncClient) -> Any:
        return self._library.AsyncAnthropic(
            api_key=self._server.key, base_url=self._server.url, http_client=http, max_retries=0
        )


def open_anthropic(rest: str, **options: Any) -> AnthropicEngine:
    """Open ``anthropic:MODEL``.

    Args:
        rest: The model's name.
        options: ``base_url`` (by default ``ANTHROPIC_BASE_URL``), ``api_key``, ``key_env`` (by default
            ``ANTHROPIC_API_KEY``), ``capacity``, and the fields of ``Patience``; a spec may have them as its
            query, save the key.

    Raises:
        CallError: An option is wrong, the key is missing, or the package ``anthropic`` is.
    """
    return AnthropicEngine(_server(rest, options))


def anthropic_capacity(rest: str) -> int:
    """Return how many calls ``anthropic:MODEL`` answers at the same time.

    Raises:
        CallError: An option is wrong, or the key is missing.
    """
    return _server(rest, {}).capacity


def _server(rest: str, named: Mapping[str, Any]) -> Server:
    start, _, query = rest.partition("?")
    options = Options("anthropic", query, named)
    served = "://" in start
    base = start if served else options.take("base_url") or os.environ.get("ANTHROPIC_BASE_URL") or _HOSTED
    model = options.take("model") if served else start
    if not model:
        raise options.wrong("which model? such as anthropic:claude-opus-4-8")
    key = options.key("ANTHROPIC_API_KEY")
    return Server(options.url(base), model, key, options.capacity(_CAPACITY), options.patience())


def _library() -> Any:
    try:
        import_module("httpx2")
        return import_module("anthropic")
    except ImportError as error:
        raise CallError(
            "the anthropic engine needs the package anthropic, version 2 or later; install it with: "
            "pip install 'penstock[anthropic]'",
            ErrorCode.UNAVAILABLE,
        ) from error
