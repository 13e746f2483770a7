"""A model of Hugging Face's package transformers in this process, on torch.

The library's calls block, so each runs in one of the engine's own threads, one per slot.  A cancel is heard
after every token, and between the layers of the model while a token or a prompt is computed.
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
from penstock.engines import hugging_face
from penstock.engines.base import Engine, refuse_invalid
from penstock.engines.handoff import Handoff
from penstock.engines.slots import SlotThreads
from penstock.engines.transformers_model import (
    CausalModel,
    Stopped,
    TransformersSettings,
    refuse_without_libraries,
)
from penstock.engines.transformers_reading import TokenReading
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineEvent, EngineRequest

# One layer of a long prompt, and much room for a busy machine.
_STOP_S = 10.0


class TransformersEngine(Engine):
    """Answers with a model in a folder, as Hugging Face lays it out.

    Args:
        folder: Where config.json, the tokenizer and the weights are.
        name: What it is called in events and requests.
        settings: Device, slots and the like.

    Raises:
        CallError: A library is not installed, or the model cannot be loaded.
    """

    def __init__(self, folder: Path, name: str, settings: TransformersSettings | None = None) -> None:
        self.settings = TransformersSettings() if settings is None else settings
        self.model = name
        self.engine_id = f"transformers:{name}"
        self.capacity = self.settings.slots
        self.causal = CausalModel(folder, self.settings)
        self._slots = SlotThreads(self.settings.slots, f"penstock-{name}")
        self._live: set[_Generation] = set()
        _OPEN.add(self)
        self._release = weakref.finalize(self, _release, self._slots, self.causal)
        # At exit the calls in flight must be cancelled first: see _close_all.
        self._release.atexit = False

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Answer one request; beyond ``capacity`` it waits for a slot.

        ``messages`` go through the model's chat template; ``prompt`` alone is continued as it stands.

        Raises:
            CallError: ``invalid_argument`` (also for a prompt longer than the context), ``not_implemented``
                for tools, ``response_format`` and messages that are not text, ``resource_exhausted`` for a
                prompt above ``kv_budget_tokens``, ``unavailable`` once closed.
        """
        _refuse(request)
        call = ambient.current.get()
        generation = _Generation(self, request)
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
            _release(self._slots, self.causal)

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

    def __init__(self, engine: TransformersEngine, request: EngineRequest) -> None:
        self.handoff: Handoff[EngineEvent] = Handoff(asyncio.get_running_loop())
        self.failure: CallError | None = None
        self._engine = engine
        self._request = request
        causal = engine.causal
        self._reading = TokenReading(request, engine.engine_id, _unix_clock(), causal.decode, causal.ends)
        self._stopping = False
        self._cause: CallError | None = None

    def run(self) -> None:
        """Answer; every way this can end is told through the handoff."""
        try:
            if not self._stopping:
                self._answer()
            if not self._reading.ended:
                self._fail(self._cause or _cut_off())
        except Stopped:
            self._fail(self._cause or _cut_off())
        except CallError as error:
            self._fail(error)
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

    def _answer(self) -> None:
        causal, reading = self._engine.causal, self._reading
        reading.taken()
        prompt = causal.encode(self._request)
        self.handoff.put(reading.begin(len(prompt), causal.context_tokens))
        choosing = causal.choosing.with_request(self._request.sampling)
        causal.generate(prompt, choosing, reading.limit, self._on_token, self._is_stopping)

    def _on_token(self, token: int) -> bool:
        if self._stopping:
            return True
        for event in self._reading.feed(token):
            if not self.handoff.put(event):
                return True
        return self._reading.ended or self._stopping

    def _is_stopping(self) -> bool:
        return self._stopping

    def _halt(self) -> None:
        self._stopping = True
        if self._engine.withdraw(self):
            self.failure = self._cause
            self._over()

    def _over(self) -> None:
        self._engine.forget(self)
        self.handoff.finish()

    def _refused(self, error: Exception) -> CallError:
        # Before the start the tokenizer and the chat template read the request; later faults are the model's.
        code = ErrorCode.UPSTREAM_FAILED if self._reading.begun else ErrorCode.INVALID_ARGUMENT
        return CallError(f"transformers ({type(error).__name__}): {error}", code)

    def _fail(self, error: CallError) -> None:
        # Before the first event a failure is raised; after it, it is the end event.
        try:
            for event in self._reading.broken(error):
                self.handoff.put(event)
        except CallError as refusal:
            self.failure = refusal


def open_transformers(rest: str, **options: Any) -> TransformersEngine:
    """Open ``transformers:REST``: a folder, or ``owner/repo`` in the local Hugging Face cache.

    Args:
        rest: Which model.
        options: Fields of ``TransformersSettings``.

    Raises:
        CallError: The model is not there or cannot be loaded; a library is missing; an option is wrong.
    """
    settings = TransformersSettings.of(options)
    folder = _folder(rest)
    refuse_without_libraries()
    return TransformersEngine(folder, _name(rest), settings)


def transformers_capacity(rest: str) -> int:
    """Return how many calls ``transformers:REST`` answers at the same time.

    Raises:
        CallError: The model is not there, or a library is missing.
    """
    _folder(rest)
    refuse_without_libraries()
    return TransformersSettings().slots


def _folder(rest: str) -> Path:
    """The model's folder; nothing is asked of the network, not even whether there is a newer one."""
    here = Path(rest).expanduser()
    folder = here if rest and here.is_dir() else hugging_face.cached_folder(rest)
    if folder is None:
        raise CallError(
            f"transformers: {rest or 'nothing'!r} is neither a folder nor owner/repo in the local Hugging "
            "Face cache, and nothing is downloaded here; give the path of a folder with a config.json, or "
            f"run: hf download {rest if hugging_face.is_repo(rest) else 'owner/repo'}",
            ErrorCode.NOT_FOUND,
        )
    if not (folder / "config.json").is_file():
        said = f"transformers: {folder} holds no model: there is no config.json in it"
        raise CallError(said, ErrorCode.INVALID_ARGUMENT)
    return folder.resolve()


def _name(rest: str) -> str:
    here = Path(rest).expanduser()
    return here.resolve().name if here.is_dir() else rest


def _refuse(request: EngineRequest) -> None:
    refuse_invalid(request)
    form = (request.response_format or {}).get("type", "text")
    for field, asked in (("tools", bool(request.tools)), ("response_format", form != "text")):
        if asked:
            said = f"{field}: the engine transformers cannot do that; leave it out"
            raise CallError(
                said, ErrorCode.NOT_IMPLEMENTED, details=[{"path": [field], "reason": "not done"}]
            )
    penalty = request.sampling.repeat_penalty
    if penalty is not None and penalty <= 0:
        raise CallError(
            f"repeat_penalty: must be above 0 (1 is off), not {penalty!r}",
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["repeat_penalty"], "reason": "must be above 0"}],
        )
    if request.messages is None and not request.prompt:
        raise CallError(
            "prompt: is empty, and so is messages; give one of them",
            ErrorCode.INVALID_ARGUMENT,
            details=[{"path": ["prompt"], "reason": "empty"}],
        )


def _unix_clock() -> Callable[[], float]:
    # Unix time may jump; differences of these must not.
    offset = time.time() - time.perf_counter()
    return lambda: offset + time.perf_counter()


def _release(slots: SlotThreads, causal: CausalModel) -> None:
    # A model some thread still computes with cannot be freed.
    if slots.close(_STOP_S):
        causal.close()


def _cut_off() -> CallError:
    return CallError("transformers stopped before the answer was finished", ErrorCode.UPSTREAM_FAILED)


def _closed(engine: TransformersEngine) -> CallError:
    return CallError(f"{engine.engine_id} is closed", ErrorCode.UNAVAILABLE)


_OPEN: weakref.WeakSet[TransformersEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A thread that computes while the interpreter goes away may take the process down.
    for engine in tuple(_OPEN):
        engine.close()
