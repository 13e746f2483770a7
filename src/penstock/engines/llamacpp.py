"""A real language model in this process, on llama.cpp (the package xllamacpp).

The library's calls block, so each runs in one of the engine's own threads, one per slot.  Its callback
turns chunks into events and hands them to the event loop of the caller; it is also where a cancel is heard:
after every token, and in a long prompt after every batch.
"""

from __future__ import annotations

import asyncio
import atexit
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio

from penstock.calls import ambient
from penstock.engines import store
from penstock.engines.base import Engine, refuse_invalid
from penstock.engines.handoff import Handoff
from penstock.engines.llamacpp_reading import Chunk, LlamaReading
from penstock.engines.llamacpp_server import LlamaServer, LlamaSettings
from penstock.engines.slots import SlotThreads
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineEvent, EngineRequest

# One batch of a long prompt, and much room for a busy machine.
_STOP_S = 10.0
_LARGEST_SEED = 2**32 - 1


class LlamaEngine(Engine):
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
        self.model = name
        self.engine_id = f"llamacpp:{name}"
        self.capacity = self.settings.slots
        self._server = LlamaServer(model, self.settings)
        self._slots = SlotThreads(self.settings.slots, f"penstock-{name}")
        self._live: set[_Generation] = set()
        _OPEN.add(self)
        self._release = weakref.finalize(self, _release, self._slots, self._server)
        # At exit the calls in flight must be cancelled first: see _close_all.
        self._release.atexit = False

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Answer one request; beyond ``capacity`` it waits for a slot.

        ``messages`` go through the model's chat template; ``prompt`` alone is continued as it stands.

        Raises:
            CallError: ``invalid_argument`` (also for a prompt longer than the context), ``not_implemented``
                for tools, ``resource_exhausted`` for a prompt above ``kv_budget_tokens``, ``unavailable``
                once closed.
        """
        body = _body(request, self.settings.context_tokens)
        call = ambient.current.get()
        generation = _Generation(self, request, body)
        self._begin(generation)
        over = False
        try:
            while events := await generation.handoff.take():
                for event in events:
                    yield event
            over = True
            if generation.failure is not None:
                raise generation.failure
        finally:
            generation.abandon()
            # The slot is the caller's to give on only when it is free, whatever cancels us meanwhile.
            with anyio.CancelScope(shield=True):
                await generation.handoff.finished()
            if call is not None and not over:
                call.upstream_confirmed()

    def close(self) -> None:
        """Cancel what is in flight, wait until it has stopped, free the model.

        A call in flight ends with ``unavailable``.
        """
        _OPEN.discard(self)
        for generation in tuple(self._live):
            generation.stop()
        # Taken out of weakref's hands, whose own exit handler runs before ours and disarms it.
        if self._release.detach() is not None:
            _release(self._slots, self._server)

    def complete(self, body: dict[str, Any], on_chunk: Callable[[Chunk], bool]) -> None:
        """Run one request to its end in this thread."""
        self._server.complete(body, on_chunk)

    def tokens_of(self, text: str) -> list[int]:
        """The ids the model's tokenizer gives a text."""
        return self._server.tokens_of(text)

    def withdraw(self, generation: _Generation) -> bool:
        """Take a generation out of the queue; ``False`` when it has begun."""
        return self._slots.withdraw(generation)

    def forget(self, generation: _Generation) -> None:
        """A generation has stopped."""
        self._live.discard(generation)

    def _begin(self, generation: _Generation) -> None:
        self._live.add(generation)
        if not self._slots.submit(generation):
            self._live.discard(generation)
            raise _closed(self)


class _Generation:
    """One request on its way through a slot; made on the event loop, run in a slot's thread."""

    def __init__(self, engine: LlamaEngine, request: EngineRequest, body: dict[str, Any]) -> None:
        self.handoff: Handoff[EngineEvent] = Handoff(asyncio.get_running_loop())
        self.failure: CallError | None = None
        self._engine = engine
        self._body = body
        self._reading = LlamaReading(request, engine.engine_id, _unix_clock(), engine.tokens_of)
        self._stopping = False
        self._cause: CallError | None = None

    def run(self) -> None:
        """Answer; every way this can end is told through the handoff."""
        try:
            if not self._stopping:
                self._engine.complete(self._body, self._on_chunk)
            if not self._reading.ended:
                self._fail(self._cause or _cut_off())
        except Exception as error:  # noqa: BLE001 - the top of a slot's thread, which must live on
            self._fail(self._refused(error))
        finally:
            self._over()

    def abandon(self) -> None:
        """Nobody reads any more: stop as soon as possible."""
        self.handoff.close()
        self._halt()

    def stop(self) -> None:
        """The engine closes: stop as soon as possible and tell the reader."""
        self.handoff.unbound()
        self._cause = _closed(self._engine)
        self._halt()

    def _halt(self) -> None:
        self._stopping = True
        if self._engine.withdraw(self):
            self.failure = self._cause
            self._over()

    def _over(self) -> None:
        self._engine.forget(self)
        self.handoff.finish()

    def _on_chunk(self, chunk: Chunk) -> bool:
        try:
            return self._read(chunk)
        except CallError as error:
            self._cause = error
        except Exception as error:  # noqa: BLE001 - the library swallows what its callback raises
            said = f"the answer of llama.cpp could not be read ({type(error).__name__}: {error})"
            self._cause = CallError(said, ErrorCode.UPSTREAM_FAILED)
        return True

    def _read(self, chunk: Chunk) -> bool:
        if self._stopping:
            return True
        for event in self._reading.feed(chunk):
            if not self.handoff.put(event):
                return True
        return self._reading.ended or self._stopping

    def _refused(self, error: Exception) -> CallError:
        # It reads the request before it says anything; later its exceptions are its own faults.
        code = ErrorCode.UPSTREAM_FAILED if self._reading.begun else ErrorCode.INVALID_ARGUMENT
        return CallError(f"llama.cpp: {error}", code)

    def _fail(self, error: CallError) -> None:
        # Before the first event a failure is raised; after it, it is the end event.
        try:
            for event in self._reading.broken(error):
                self.handoff.put(event)
        except CallError as refusal:
            self.failure = refusal


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


def _unix_clock() -> Callable[[], float]:
    # Unix time may jump; differences of these must not.
    offset = time.time() - time.perf_counter()
    return lambda: offset + time.perf_counter()


def _release(slots: SlotThreads, server: LlamaServer) -> None:
    # A model some thread still computes with cannot be freed.
    if slots.close(_STOP_S):
        server.close()


def _cut_off() -> CallError:
    return CallError("llama.cpp stopped before the answer was finished", ErrorCode.UPSTREAM_FAILED)


def _closed(engine: LlamaEngine) -> CallError:
    return CallError(f"{engine.engine_id} is closed", ErrorCode.UNAVAILABLE)


_OPEN: weakref.WeakSet[LlamaEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # An interpreter that ends under a call in flight takes the process down with an abort.
    for engine in tuple(_OPEN):
        engine.close()
