"""A model of Hugging Face's package transformers in this process, on torch.

The library's calls block, so each runs in one of the engine's own threads, one per slot.  A cancel is heard
after every token, and between the layers of the model while a token or a prompt is computed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from penstock.engines import hugging_face
from penstock.engines.base import refuse_invalid, unix_clock
from penstock.engines.embedded import EmbeddedEngine, Generation
from penstock.engines.transformers_model import (
    CausalModel,
    Stopped,
    TransformersSettings,
    refuse_without_libraries,
)
from penstock.engines.transformers_reading import TokenReading
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineEvent, EngineRequest


class TransformersEngine(EmbeddedEngine):
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
        self.causal = CausalModel(folder, self.settings)
        context = self.causal.context_tokens
        super().__init__(
            "transformers", name, self.settings.slots, self.causal, context, self.settings.kv_tokens
        )

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Answer one request; beyond ``capacity`` it waits for a slot.

        ``messages`` go through the model's chat template; ``prompt`` alone is continued as it stands.

        Raises:
            CallError: ``invalid_argument`` (also for a prompt longer than the context), ``not_implemented``
                for tools, ``response_format`` and messages that are not text, ``resource_exhausted`` for a
                prompt above ``kv_budget_tokens`` and without room in the KV cache, ``unavailable`` once
                closed.
        """
        _refuse(request)
        async with aclosing(self.events_of(_Generation(self, request), request)) as events:
            async for event in events:
                yield event


class _Generation(Generation):
    def __init__(self, engine: TransformersEngine, request: EngineRequest) -> None:
        causal = self._causal = engine.causal
        self._request = request
        clock = unix_clock()
        self._reading = TokenReading(request, engine.engine_id, clock, causal.decode, causal.ends)
        super().__init__(engine, "transformers", self._reading)

    def answer(self) -> None:
        """See ``Generation.answer``."""
        causal, reading = self._causal, self._reading
        reading.taken()
        prompt = causal.encode(self._request)
        start = reading.begin(len(prompt), causal.context_tokens)
        if self.room is not None:  # its cache is let go of when the answer is over: there are no ids to find
            self.room.allocate(len(prompt) + reading.limit)
        self.handoff.put(start)
        choosing = causal.choosing.with_request(self._request.sampling)
        with suppress(Stopped):
            causal.generate(prompt, choosing, reading.limit, self._on_token, lambda: self.stopping)

    def _on_token(self, token: int) -> bool:
        return self.put(self._reading.feed(token))


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
