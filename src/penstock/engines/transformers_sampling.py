"""How the next token is chosen, for models of the package transformers.

The library draws from one random generator of the whole process; here each request has its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import msgspec

from penstock.protocol.events import Sampling

_LARGEST_SEED = 2**63
# Below this, dividing by the temperature would overflow; it is as good as greedy long before.
_LEAST_TEMPERATURE = 1e-5


class Choosing(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's folder says about sampling, and with a request what holds for it.

    A ``temperature`` of 0 takes the likeliest token; a ``top_k`` of 0 and a ``top_p`` of 1 leave all in.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None

    @classmethod
    def of_folder(cls, config: Any) -> Choosing:
        """Read a ``GenerationConfig``; a model that does not sample by itself is greedy by default."""
        samples = bool(config.do_sample)
        return cls(
            temperature=(config.temperature or 1.0) if samples else 0.0,
            top_p=(config.top_p or 1.0) if samples else 1.0,
            top_k=(config.top_k or 0) if samples else 0,
            repeat_penalty=config.repetition_penalty or 1.0,
        )

    def with_request(self, sampling: Sampling) -> Choosing:
        """Return this with what a request says; one that asks for a part of sampling wants to sample."""
        said = {
            name: value for name in self.__struct_fields__ if (value := getattr(sampling, name)) is not None
        }
        if "temperature" not in said and self.temperature == 0 and said.keys() & {"top_p", "top_k", "seed"}:
            said["temperature"] = 1.0
        return msgspec.structs.replace(self, **said)


def processors(choosing: Choosing, prompt_tokens: int, device: Any) -> list[Any]:
    """Return what turns scores into the choice of one token, as the library's logits processors."""
    made: list[Any] = []
    if choosing.repeat_penalty != 1:
        made.append(_library("RepetitionPenaltyLogitsProcessor")(penalty=float(choosing.repeat_penalty)))
    if choosing.presence_penalty or choosing.frequency_penalty:
        made.append(_Penalties(choosing, prompt_tokens))
    if choosing.temperature > 0:
        made.append(_Draw(choosing, device))
    return made


class _Penalties:
    """OpenAI's two penalties, over the tokens of the answer."""

    def __init__(self, choosing: Choosing, prompt_tokens: int) -> None:
        self._presence, self._frequency = choosing.presence_penalty, choosing.frequency_penalty
        self._prompt_tokens = prompt_tokens
        self._torch: Any = import_module("torch")

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        said = input_ids[0, self._prompt_tokens :]
        times = self._torch.bincount(said, minlength=scores.shape[-1]).to(scores.dtype)
        return scores - self._frequency * times - self._presence * (times > 0)


class _Draw:
    """Draws one token with a generator of its own, and leaves no other in the scores it is given."""

    def __init__(self, choosing: Choosing, device: Any) -> None:
        self._torch: Any = import_module("torch")
        self._temperature = max(choosing.temperature, _LEAST_TEMPERATURE)
        self._filters: list[Any] = []
        if choosing.top_k:
            self._filters.append(_library("TopKLogitsWarper")(top_k=choosing.top_k))
        if choosing.top_p < 1:
            self._filters.append(_library("TopPLogitsWarper")(top_p=float(choosing.top_p)))
        self._generator = self._torch.Generator(device=device)
        if choosing.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(choosing.seed % _LARGEST_SEED)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        # In place where it can be: with large vocabularies, new memory costs more than the arithmetic.
        likely = (scores - scores.max()).div_(self._temperature)
        for keep in self._filters:
            likely = keep(input_ids, likely)
        chosen = self._torch.multinomial(likely.softmax(dim=-1), 1, generator=self._generator)
        return scores.fill_(float("-inf")).scatter_(1, chosen, 0.0)


def _library(name: str) -> Any:
    return getattr(import_module("transformers"), name)
