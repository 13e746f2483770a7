"""An SGLang server: ``sglang://localhost:30000``.

A prompt goes to its native ``POST /generate``, which tells token ids and counts; messages go to its route
``POST /v1/chat/completions``, because only that applies the model's chat template.  On both, the id of the
call is the server's ``rid``, and a cancel is a ``POST /abort_request``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from penstock.calls.tasks import TaskOwner
from penstock.engines.openai_reading import OpenAIReading
from penstock.engines.sglang_names import Names
from penstock.engines.sglang_reading import SGLangReading
from penstock.engines.sglang_sending import Sending
from penstock.engines.upstream import faults
from penstock.engines.upstream.address import Options, Server
from penstock.engines.upstream.engine import Question, UpstreamEngine
from penstock.engines.upstream.patience import Deadlines
from penstock.engines.upstream.upstream import Upstream
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import UNBOUNDED, EngineRequest

_CAPACITY = 256
_LARGEST_SEED = 2**31 - 1
# Stopping takes an abort, its answer and the closing: all of it within what closing may take.
_OF_CLOSING = 0.8


class SGLangChatReading(OpenAIReading):
    """Reads the chat route, whose answers carry the ``rid`` as their id."""

    rid = ""
    """By which id the server knows the generation."""

    def _identify(self, told: str) -> None:
        if told != self.rid:
            raise faults.garbled(self.engine_id, "answers another request than the one it was sent")
        super()._identify(told)


class SGLangEngine(UpstreamEngine[httpx.AsyncClient]):
    """A model on an SGLang server.

    Args:
        server: Where it is, and how long it is waited for.
    """

    def __init__(self, server: Server) -> None:
        self.model = server.model or "default"
        self.engine_id = f"sglang:{server.model}" if server.model else "sglang"
        self.capacity = server.capacity
        self.close_s = server.patience.close_s * _OF_CLOSING
        self.abort_url = f"{server.url}/abort_request"
        self.names = Names()
        self.tasks = TaskOwner()
        self._server = server
        self._headers = {"authorization": f"Bearer {server.key}"} if server.key else {}
        self.upstream = Upstream(
            self.engine_id,
            server.url,
            self._signed,
            capacity=server.capacity,
            patience=server.patience,
            secrets=(server.key,) if server.key else (),
        )

    async def question(self, request: EngineRequest, deadlines: Deadlines) -> Question[httpx.AsyncClient]:
        """See ``UpstreamEngine.question``."""
        _refuse_unable(request)
        reading: SGLangReading | SGLangChatReading
        if request.messages is None:
            path, body, reading = "/generate", _native(request), SGLangReading(request, self.engine_id)
        else:
            path, body = "/v1/chat/completions", _chat(request, self._server.model)
            reading = SGLangChatReading(request, self.engine_id, self.upstream.secrets)
        fields = _encoded(body)
        url = self._server.url + path

        async def send(http: httpx.AsyncClient) -> None:
            def asking(rid: str) -> httpx.Request:
                content = b'{"rid":' + msgspec.json.encode(rid) + b"," + fields[1:]
                return http.build_request(
                    "POST", url, content=content, headers={"content-type": "application/json"}
                )

            await Sending(self, http, asking, request.request_id, reading).open()

        return Question(send, reading)

    async def call_off(self, request: EngineRequest) -> bool:
        """Closing the answer has stopped the work, and has told the call of it."""
        return False

    def _signed(self, http: httpx.AsyncClient) -> httpx.AsyncClient:
        http.headers.update(self._headers)
        return http


def open_sglang(rest: str, **options: Any) -> SGLangEngine:
    """Open ``sglang://HOST:PORT``.

    Args:
        rest: Its URL, or ``HOST:PORT``.
        options: ``model``, ``api_key``, ``key_env``, ``capacity``, and the fields of ``Patience``; a URL may
            have them as its query, save the key.

    Raises:
        CallError: An option is wrong.
    """
    return SGLangEngine(_server(rest, options))


def sglang_capacity(rest: str) -> int:
    """Return how many calls ``sglang://HOST:PORT`` answers at the same time.

    Raises:
        CallError: An option is wrong.
    """
    return _server(rest, {}).capacity


def _server(rest: str, named: Mapping[str, Any]) -> Server:
    address, _, query = rest.partition("?")
    options = Options("sglang", query, named)
    url = options.url(address if "://" in address else f"http://{address}")
    key, capacity, model = options.key(), options.capacity(_CAPACITY), options.take("model")
    return Server(url, model, key, capacity, options.patience())


def _native(request: EngineRequest) -> dict[str, Any]:
    if not request.prompt:
        raise CallError(
            "prompt: is empty, and so is messages; give one of them",
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["prompt"], "reason": "empty"}],
        )
    sampling = request.sampling
    schema = _schema(request.response_format)
    chosen = {
        "max_new_tokens": min(request.max_tokens, UNBOUNDED),
        "sampling_seed": None if sampling.seed is None else sampling.seed % _LARGEST_SEED,
        "json_schema": None if schema is None else _encoded(schema).decode(),
        **_sampling(request),
    }
    return {"text": request.prompt, "stream": True, "sampling_params": _given(chosen)}


def _chat(request: EngineRequest, model: str | None) -> dict[str, Any]:
    sampling = request.sampling
    return _given(
        {
            "messages": request.messages,
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": None if request.max_tokens == UNBOUNDED else min(request.max_tokens, UNBOUNDED),
            "seed": None if sampling.seed is None else sampling.seed % _LARGEST_SEED,
            "tools": request.tools or None,
            "response_format": request.response_format or None,
            **_sampling(request),
        }
    )


def _sampling(request: EngineRequest) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # SGLang's word for "off" is -1.
        "top_k": -1 if sampling.top_k == 0 else sampling.top_k,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repeat_penalty,
        "stop": list(sampling.stop) or None,
    }


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _schema(response_format: Mapping[str, Any] | None) -> object:
    if not response_format or response_format.get("type") == "text":
        return None
    if response_format.get("type") == "json_object":
        return {"type": "object"}
    schema: object = (response_format.get("json_schema") or {}).get("schema")
    if schema is None:
        raise CallError(
            "response_format: is text, json_object, or json_schema with a schema", ErrorCode.INVALID_ARGUMENT
        )
    return schema


def _refuse_unable(request: EngineRequest) -> None:
    unable = {
        "kv_budget_tokens": request.kv_budget_tokens is not None,
        "tools": request.messages is None and bool(request.tools),
    }
    for name, asked in unable.items():
        if asked:
            raise CallError(f"{name}: this engine does not have it; leave it out", ErrorCode.NOT_IMPLEMENTED)


def _encoded(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError) as error:
        said = f"the request holds what JSON cannot: {error}"
        raise CallError(said, ErrorCode.INVALID_ARGUMENT) from error
