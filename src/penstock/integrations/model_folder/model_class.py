"""What ``clarifai.runners.models`` gives a model, where that package is not installed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, TypeVar

from penstock.runtime.context import current_call, get_request_id

F = TypeVar("F", bound=Callable[..., Any])

METHOD = "_cf_method_info"
"""What marks a method, in the package clarifai too."""

logger = logging.getLogger("clarifai")


class ModelClass:
    """What a model derives from."""

    @staticmethod
    def method(function: F) -> F:
        """Mark a method as one that callers may call."""
        setattr(function, METHOD, function.__name__)
        return function

    def load_model(self) -> None:
        """Load the model; called once, before the first call."""

    def set_output_context(
        self,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> None:
        """Log how many tokens an output took."""
        log_tokens(prompt_tokens, completion_tokens, cached_tokens)


def log_tokens(
    prompt_tokens: int | None = None, completion_tokens: int | None = None, cached_tokens: int | None = None
) -> None:
    """Log how many tokens an output took, with the ids of its call; outside of a call nothing."""
    if get_request_id() is not None:
        counts = (prompt_tokens, completion_tokens, cached_tokens)
        current_call().log("tokens: prompt %s, completion %s, cached %s", *counts)


CHAT = "/chat/completions"
RESPONSES = "/responses"


class OpenAIModelClass(ModelClass):
    """A model that an OpenAI-compatible server runs: ``client`` speaks to it, ``model`` is its name there."""

    client: Any = None
    model: str | None = None

    def __init__(self) -> None:
        super().__init__()
        if self.client is None:
            raise NotImplementedError(f"{type(self).__name__} has no `client`; set it to an OpenAI client")
        if self.model is None:
            self.model = self.client.models.list().data[0].id

    @ModelClass.method
    def openai_transport(self, msg: str) -> str:
        """Answer a request of OpenAI's protocol.

        Args:
            msg: Its JSON, with the route under ``openai_endpoint``.
        """
        endpoint, request = self._read(msg)
        answer = self._create(endpoint)(**request)
        return str(answer.model_dump_json())

    @ModelClass.method
    def openai_stream_transport(self, msg: str) -> Iterator[str]:
        """Answer a request of OpenAI's protocol piece by piece; each item is the JSON of a chunk.

        Args:
            msg: Its JSON, with the route under ``openai_endpoint``.
        """
        endpoint, request = self._read(msg)
        if endpoint not in (CHAT, RESPONSES):
            raise ValueError(f"{endpoint} does not stream; use {CHAT} or {RESPONSES}")
        with closing(self._create(endpoint)(**{**request, "stream": True})) as chunks:
            for chunk in chunks:
                yield chunk.model_dump_json()

    def _read(self, msg: str) -> tuple[str, dict[str, Any]]:
        request: dict[str, Any] = json.loads(msg)
        endpoint = request.pop("openai_endpoint", CHAT)
        return endpoint, {**request, "model": self.model}

    def _create(self, endpoint: str) -> Callable[..., Any]:
        client = self.client
        routes: Mapping[str, Callable[[], Callable[..., Any]]] = {
            CHAT: lambda: client.chat.completions.create,
            RESPONSES: lambda: client.responses.create,
            "/embeddings": lambda: client.embeddings.create,
            "/images/generations": lambda: client.images.generate,
        }
        if endpoint not in routes:
            raise ValueError(f"{endpoint} is none of {', '.join(routes)}")
        found: Callable[..., Any] = routes[endpoint]()
        return found
