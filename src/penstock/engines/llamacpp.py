"""A real language model in this process, on llama.cpp (the package xllamacpp).

The library's calls block, so each runs in one of the engine's own threads, one per slot.  Its callback
turns chunks into events and hands them to the event loop of the caller; it is also where a cancel is heard:
after every token, and in a long prompt after every batch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from penstock.calls import ambient
from penstock.engines import store
from penstock.engines.base import refuse_invalid, unix_clock
from penstock.engines.embedded import EmbeddedEngine, Generation
from penstock.engines.llamacpp_reading import Chunk, LlamaReading
from penstock.engines.llamacpp_server import LlamaServer, LlamaSettings
from penstock.engines.prefixes import SlotPrefixes
from penstock.errors import CallError, ErrorCode
from penstock.kv.prompts import conversation_prompt, raw_prompt
from penstock.protocol.events import EngineEvent, EngineRequest

_LARGEST_SEED = 2**32 - 1


class LlamaEngine(EmbeddedEngine):
    """Answers with a GGUF model.

    Args:
        model: The model's file.
        name: What it is called in events and requests.
        settings: Slots, context and the like.

    Raises:
        CallError: The model cannot be loaded.
    """

    def __init__(self, model: Path, name: str, settings: LlamaSettings | None = None) -> None:
        self.settings = LlamaSettings() if settings is None else settings
        self._server = LlamaServer(model, self.settings)
        self.prefixes = SlotPrefixes(self.settings.slots)
        settings = self.settings
        super().__init__(
            "llamacpp", name, settings.slots, self._server, settings.context_tokens, settings.kv_tokens
        )

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Answer one request; beyond ``capacity`` it waits for a slot.

        ``messages`` go through the model's chat template; ``prompt`` alone is continued as it stands.

        Raises:
            CallError: ``invalid_argument`` (also for a prompt longer than the context), ``not_implemented``
                for tools, ``resource_exhausted`` for a prompt above ``kv_budget_tokens`` and without room
                in the KV cache, ``unavailable`` once closed.
        """
        generation = _Generation(self, request, _body(request, self.settings.context_tokens))
        async with aclosing(self.events_of(generation, request)) as events:
            async for event in events:
                yield event

    def close(self) -> None:
        """See ``EmbeddedEngine.close``."""
        super().close()
        self.prefixes.close()

    def complete(self, body: dict[str, Any], on_chunk: Callable[[Chunk], bool]) -> None:
        """Run one request to its end in this thread."""
        self._server.complete(body, on_chunk)

    def tokens_of(self, text: str) -> list[int]:
        """The ids the model's tokenizer gives a text."""
        return self._server.tokens_of(text)

    def prompt_ids(self, body: dict[str, Any]) -> list[int]:
        """The ids of a request's prompt; empty where they cannot be had."""
        return self._server.prompt_ids(body)


class _Generation(Generation):
    def __init__(self, engine: LlamaEngine, request: EngineRequest, body: dict[str, Any]) -> None:
        self._reading = LlamaReading(request, engine.engine_id, unix_clock(), engine.tokens_of)
        super().__init__(engine, "llama.cpp", self._reading)
        self._llama = engine
        self._request = request
        self._body = body
        self._prompt_ids: list[int] = []
        self._prompt = (
            raw_prompt(request.prompt) if request.messages is None else conversation_prompt(request.messages)
        )
        self._asked = ambient.asked_prefix.get()

    def answer(self) -> None:
        """See ``Generation.answer``."""
        self._allocate()
        prefixes = self._llama.prefixes
        slot = prefixes.take(self._prompt_ids or self._prompt.chain())
        try:
            self._llama.complete(self._body | {"id_slot": slot}, self._on_chunk)
        finally:
            self._note_what_is_held(slot)
            prefixes.give_back(slot)
            self._tell_cache()

    def _allocate(self) -> None:
        """Allocate what the prompt and its answer take; without its ids, what was asked for."""
        kv, room, request = self._llama.kv, self.room, self._request
        if kv is None or room is None:
            return
        self._prompt_ids = ids = self._llama.prompt_ids(self._body)
        if not 0 < len(ids) < self._llama.settings.context_tokens:
            room.allocate(room.num_tokens)  # what is too long llama.cpp refuses, and says so better
            return
        room.allocate(kv.fitting(len(ids), request.max_tokens, request.kv_budget_tokens), ids)

    def _tell_cache(self) -> None:
        """Tell the books what llama.cpp has done; of a prompt that it read otherwise they keep nothing."""
        kv, room, reading = self._llama.kv, self.room, self._reading
        if kv is None or room is None or not reading.evaluated:
            return
        kv.told(reading.prompt_tokens, reading.cached_tokens)
        if len(self._prompt_ids) == reading.prompt_tokens:
            room.computed = True
            room.follow(reading.answer_ids[:-1])  # the last token was never read

    def _note_what_is_held(self, slot: int) -> None:
        reading, prefixes = self._reading, self._llama.prefixes
        if reading.evaluated:
            ids = self._prompt_ids and [*self._prompt_ids, *reading.answer_ids]
            prefixes.evaluated(slot, ids or self._prompt.chain(reading.text), self._asked, reading.text)
        elif not reading.cached_tokens:
            prefixes.lost(slot)

    def _on_chunk(self, chunk: Chunk) -> bool:
        try:
            return self.put(self._reading.feed(chunk))
        except CallError as error:
            self.cause = error
        except Exception as error:  # noqa: BLE001 - the library swallows what its callback raises
            said = f"the answer of llama.cpp could not be read ({type(error).__name__}: {error})"
            self.cause = CallError(said, ErrorCode.UPSTREAM_FAILED)
        return True


def open_llamacpp(rest: str, **options: Any) -> LlamaEngine:
    """Open ``llamacpp:REST``: a model's name, a GGUF file, or ``owner/repo/file.gguf``.

    Args:
        rest: Which model.
        options: Fields of ``LlamaSettings``.

    Raises:
        CallError: The model is unknown, not pulled, or cannot be loaded; an option is wrong.
    """
    settings = LlamaSettings.of(options)
    model = store.ModelStore().resolve(rest)
    name = rest if rest in store.KNOWN else model.stem
    return LlamaEngine(model, name, settings)


def llamacpp_capacity(rest: str) -> int:
    """Return how many calls ``llamacpp:REST`` answers at the same time.

    Raises:
        CallError: The model is unknown or not pulled.
    """
    store.ModelStore().resolve(rest)
    return LlamaSettings().slots


def _body(request: EngineRequest, context_tokens: int) -> dict[str, Any]:
    refuse_invalid(request)
    if request.tools:
        raise CallError(
            "tools: the llamacpp engine does not call tools; leave them out", ErrorCode.NOT_IMPLEMENTED
        )
    body: dict[str, Any] = {
        "stream": True,
        # The library wants a number that fits its own integers; more than the context can never be said.
        "max_tokens": min(request.max_tokens, context_tokens),
        # What brings token ids, progress in a long prompt (a chance to cancel) and counts per chunk.
        "n_probs": 1,
        "return_progress": True,
        "timings_per_token": True,
    }
    return body | _asked(request) | _chosen(request)


def _asked(request: EngineRequest) -> dict[str, Any]:
    if request.messages is not None:
        asked: dict[str, Any] = {"messages": [dict(message) for message in request.messages]}
        return asked | ({"response_format": request.response_format} if request.response_format else {})
    if not request.prompt:
        raise CallError(
            "prompt: is empty, and so is messages; give one of them",
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["prompt"], "reason": "empty"}],
        )
    schema = (request.response_format or {}).get("json_schema", {}).get("schema")
    return {"prompt": request.prompt} | ({"json_schema": schema} if schema else {})


def _chosen(request: EngineRequest) -> dict[str, Any]:
    sampling = request.sampling
    chosen = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": None if sampling.seed is None else sampling.seed % _LARGEST_SEED,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repeat_penalty,
    }
    return {name: value for name, value in chosen.items() if value is not None}
