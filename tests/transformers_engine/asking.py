"""Asking a tiny model, and watching what runs in it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from penstock.engines.transformers import TransformersEngine
from penstock.protocol.events import EngineEnd, EngineEvent, EngineRequest, Sampling
from penstock.testing import check_events

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.5, seed=7)


def request(prompt: str = "the river", max_tokens: int = 16, **fields: Any) -> EngineRequest:
    fields = {"sampling": GREEDY} | fields
    return EngineRequest(
        request_id=uuid.uuid4().hex, trace_id="t", model="m", prompt=prompt, max_tokens=max_tokens, **fields
    )


def chat(*texts: str, **fields: Any) -> EngineRequest:
    return request("", messages=tuple({"role": "user", "content": text} for text in texts), **fields)


async def run(engine: TransformersEngine, asked: EngineRequest) -> list[EngineEvent]:
    with anyio.fail_after(30):
        async with aclosing(engine.generate(asked)) as events:
            return [event async for event in events]


async def end_of(engine: TransformersEngine, asked: EngineRequest) -> EngineEnd:
    return check_events(await run(engine, asked), asked, engine.engine_id)


def model_of(engine: TransformersEngine) -> Any:
    return engine.causal._model


def tokenizer_of(engine: TransformersEngine) -> Any:
    return engine.causal._tokenizer


class Watched:
    """Counts what runs in a model, and holds it at a layer when asked to."""

    def __init__(self, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside = self.most_inside = self.calls = 0
        self.ran: list[int] = []
        self.hold_at: Callable[[int, int], bool] = lambda layer, tokens: False
        self.held, self.go_on = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._generate = engine.causal.generate
        monkeypatch.setattr(engine.causal, "generate", self.generate)
        self._hooks = [
            layer.register_forward_hook(self._seen(number), with_kwargs=False)
            for number, layer in enumerate(model_of(engine).model.layers)
        ]

    def generate(self, *arguments: Any) -> None:
        with self._lock:
            self.inside += 1
            self.calls += 1
            self.most_inside = max(self.inside, self.most_inside)
        try:
            self._generate(*arguments)
        finally:
            with self._lock:
                self.inside -= 1

    def remove(self) -> None:
        self.go_on.set()
        for hook in self._hooks:
            hook.remove()

    def _seen(self, number: int) -> Callable[..., None]:
        def seen(_layer: Any, inputs: Any, _output: Any) -> None:
            self.ran.append(number)
            if self.hold_at(number, inputs[0].shape[1]):
                self.held.set()
                assert self.go_on.wait(20)

        return seen


async def wait_for(event: threading.Event) -> None:
    with anyio.fail_after(20):
        assert await anyio.to_thread.run_sync(event.wait, 20)
