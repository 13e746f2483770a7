"""Models behind OpenAI's protocol: vLLM, llama.cpp, Ollama, LM Studio and others, and OpenAI itself.

The request is made by the official client (extra ``openai``), the answer is read here.  It is always
streamed, as only a stream can be cancelled: closing its connection is what stops the server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import msgspec

from penstock.engines.openai_address import HOSTED, Address, address_of
from penstock.engines.openai_reading import OpenAIReading
from penstock.engines.upstream import faults
from penstock.engines.upstream.engine import Question, UpstreamEngine
from penstock.engines.upstream.patience import Deadlines, Patience
from penstock.engines.upstream.upstream import Upstream
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import UNBOUNDED, EngineRequest

if TYPE_CHECKING:
    import httpx

_LARGEST_SEED = 2**32 - 1

# What another server than OpenAI's gets of the headers its client makes: that one adds the organisation, the
# project and whatever else the environment holds for OpenAI, and tells what machine this is.
_SENT = frozenset(
    ("host", "connection", "accept", "accept-encoding", "user-agent", "content-type", "content-length")
)
_SENT_OF_OURS = frozenset(("x-request-id", "x-request-timeout", "x-stainless-raw-response"))


class Asker(NamedTuple):
    """What asks the server, on one event loop."""

    http: httpx.AsyncClient
    sdk: Any
    asking: anyio.Lock


class OpenAIEngine(UpstreamEngine[Asker]):
    """A model on a server that speaks OpenAI's protocol.

    Args:
        address: Where, which model, with what key.
        capacity: Generations at the same time.
        patience: How long the server is waited for.

    Raises:
        CallError: ``unavailable``: the package ``openai`` is not installed.
    """

    def __init__(self, address: Address, *, capacity: int = 64, patience: Patience | None = None) -> None:
        self._library = _library()
        self._address = address
        self._hosted = urlsplit(address.url).hostname == HOSTED
        self._asked = address.model
        self.capacity = capacity
        self.upstream = Upstream(
            "openai",
            address.url,
            self._asker,
            capacity=capacity,
            patience=Patience() if patience is None else patience,
            secrets=(address.key,) if address.key else (),
            sdk_errors=(self._library.OpenAIError,),
        )
        self._name(address.model or "")

    async def question(self, request: EngineRequest, deadlines: Deadlines) -> Question[Asker]:
        """See ``UpstreamEngine.question``."""
        fields = _fields(request, hosted=self._hosted)
        model = self._asked or await self._discover()
        headers = {} if self._hosted else _headers(request, deadlines)
        form, asked = _asked(request, hosted=self._hosted)

        async def send(asker: Asker) -> object:
            resource = asker.sdk.chat.completions if form == "messages" else asker.sdk.completions
            return await resource.with_raw_response.create(
                model=model, **{form: asked}, stream=True, extra_body=fields, extra_headers=headers
            )

        return Question(send, OpenAIReading(request, self.engine_id, self.upstream.secrets))

    async def _discover(self) -> str:
        """Ask the server which model it has; once, as far as it answers."""
        asking = (await self.upstream.lane()).sdk.asking
        async with asking:
            if self._asked is None:
                body = await self.upstream.ask(self._list_models)
                self._asked = _only_model(body)
                self._name(self._asked)
        return self._asked

    async def _list_models(self, asker: Asker) -> object:
        request = asker.http.build_request("GET", f"{self._address.url}/models")
        return await asker.http.send(request, stream=True)

    def _name(self, model: str) -> None:
        # Servers name a model after its file; the path is nobody's business.
        self.model = model.replace("\\", "/").rpartition("/")[2] if _is_path(model) else model
        self.engine_id = f"openai:{self.model}" if model else "openai"
        self.upstream.name = self.engine_id

    def _asker(self, http: httpx.AsyncClient) -> Asker:
        if not self._hosted:
            http.event_hooks = {**http.event_hooks, "request": [self._strip]}
        sdk = self._library.AsyncOpenAI(
            # Without a key it wants one all the same; _strip takes it out.
            api_key=self._address.key or "none",
            base_url=self._address.url,
            http_client=http,
            max_retries=0,
        )
        return Asker(http, sdk, anyio.Lock())

    async def _strip(self, request: httpx.Request) -> None:
        for name in tuple(request.headers):
            if name not in _SENT and name not in _SENT_OF_OURS:
                del request.headers[name]
        if self._address.key:
            request.headers["authorization"] = f"Bearer {self._address.key}"


def open_openai(rest: str, **options: Any) -> OpenAIEngine:
    """Open ``openai://HOST:PORT`` (``rest`` is then its URL) or ``openai:MODEL``.

    Args:
        rest: A URL, or the name of a hosted model.
        options: ``model``, ``base_url``, ``api_key``, ``key_env``, ``capacity``, and the fields of
            ``Patience``; a URL may have them as its query, save the key.

    Raises:
        CallError: An option is wrong, a key is missing, or the package ``openai`` is.
    """
    address, capacity, patience = address_of(rest, options)
    return OpenAIEngine(address, capacity=capacity, patience=patience)


def openai_capacity(rest: str) -> int:
    """Return how many calls ``openai://…`` or ``openai:MODEL`` answers at the same time.

    Raises:
        CallError: An option is wrong, or a key is missing.
    """
    return address_of(rest, {}).capacity


def _library() -> Any:
    try:
        # It imports these when first used, which would hold an event loop for a tenth of a second.
        for part in ("openai.resources.chat", "openai.resources.completions"):
            import_module(part)
        return import_module("openai")
    except ImportError as error:
        raise CallError(
            "the openai engine needs the package openai; install it with: pip install 'penstock[openai]'",
            ErrorCode.UNAVAILABLE,
        ) from error


def _asked(request: EngineRequest, *, hosted: bool) -> tuple[str, object]:
    if request.messages is not None:
        return "messages", [dict(message) for message in request.messages]
    if not request.prompt:
        raise CallError(
            "prompt: is empty, and so is messages; give one of them",
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["prompt"], "reason": "empty"}],
        )
    if hosted:
        # OpenAI's models are for chats; the route for texts is closed to them.
        return "messages", [{"role": "user", "content": request.prompt}]
    return "prompt", request.prompt


def _fields(request: EngineRequest, *, hosted: bool) -> dict[str, Any]:
    _refuse_unable(request, hosted)
    sampling = request.sampling
    fields = {
        "max_completion_tokens" if hosted else "max_tokens": _most_tokens(request),
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": None if sampling.seed is None else sampling.seed % _LARGEST_SEED,
        "stop": list(sampling.stop) or None,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "tools": None if not request.tools else list(request.tools),
        "response_format": request.response_format or None,
        # Beyond OpenAI's: what vLLM, SGLang and llama.cpp take; the last two names are one thing.
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repeat_penalty,
        "repeat_penalty": sampling.repeat_penalty,
    }
    return _sendable({name: value for name, value in fields.items() if value is not None}, request)


def _most_tokens(request: EngineRequest) -> int | None:
    """Return how long the answer may be; None leaves it to the server, which knows its context, and which for
    texts would choose 16."""
    bounded = request.messages is None or request.max_tokens != UNBOUNDED
    return min(request.max_tokens, UNBOUNDED) if bounded else None


def _refuse_unable(request: EngineRequest, hosted: bool) -> None:
    unable = {
        "kv_budget_tokens": request.kv_budget_tokens is not None,
        "top_k": hosted and request.sampling.top_k is not None,
        "repeat_penalty": hosted and request.sampling.repeat_penalty is not None,
        "tools": request.messages is None and bool(request.tools) and not hosted,
    }
    for name, asked in unable.items():
        if asked:
            raise CallError(f"{name}: this engine does not have it; leave it out", ErrorCode.NOT_IMPLEMENTED)


def _sendable(fields: dict[str, Any], request: EngineRequest) -> dict[str, Any]:
    """Refuse what is not JSON before a request is made of it."""
    try:
        msgspec.json.encode((fields, request.messages, request.prompt))
    except (TypeError, ValueError) as error:
        said = f"the request holds what JSON cannot: {error}"
        raise CallError(said, ErrorCode.INVALID_ARGUMENT) from error
    return fields


def _headers(request: EngineRequest, deadlines: Deadlines) -> dict[str, str]:
    left_s = deadlines.remaining()
    bound = {} if left_s is None else {"x-request-timeout": f"{left_s:.3f}"}
    return {"x-request-id": request.request_id} | bound


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def _only_model(body: bytes) -> str:
    try:
        names = [model.id for model in msgspec.json.decode(body, type=_Models).data]
    except faults.UNREADABLE as error:
        raise CallError(
            "openai: the server's list of models cannot be read; name one with ?model=NAME",
            ErrorCode.FAILED_PRECONDITION,
        ) from error
    if len(names) != 1:
        raise CallError(
            f"openai: the server has {len(names)} models; name one with ?model=NAME or model=",
            ErrorCode.FAILED_PRECONDITION,
        )
    return names[0]


def _is_path(model: str) -> bool:
    return model.startswith(("/", "~", ".")) or "\\" in model or model.endswith(".gguf")
