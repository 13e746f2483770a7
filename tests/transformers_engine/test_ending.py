"""How answers end, what they cost, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock.engines.transformers import TransformersEngine
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineRequest, Sampling
from transformers_engine.asking import (
    WARM,
    chat,
    end_of,
    model_of,
    request,
    run,
)
from transformers_engine.making import CONTEXT, save

pytestmark = pytest.mark.anyio


async def test_a_stop_string_ends_it(tiny: TransformersEngine) -> None:
    whole = await end_of(tiny, request(max_tokens=40, sampling=WARM))
    stop = whole.output_text[9:13]
    sampling = Sampling(temperature=1.5, seed=7, stop=("never said", stop))
    cut = await end_of(tiny, request(max_tokens=40, sampling=sampling))
    assert cut.output_text == whole.output_text[: whole.output_text.index(stop)]
    assert cut.finish_reason == "stop"
    assert len(cut.output_tokens) < 40


async def test_an_end_token_ends_it_and_is_no_part_of_the_answer(tmp_path: Path) -> None:
    async with TransformersEngine(save(tmp_path), "m") as engine:
        plain = (await end_of(engine, request())).output_tokens
        last = next(token for at, token in enumerate(plain) if at > 3 and token not in plain[:at])
        (end_token,) = engine.causal.ends
        weights = model_of(engine).lm_head.weight
        with torch.no_grad():
            # A little likelier than a token the answer is known to have.
            weights[end_token] = weights[last] * 1.01
        end = await end_of(engine, request())
    assert end.output_tokens == plain[: plain.index(last)]
    assert end.finish_reason == "stop"


async def test_the_context_ends_it(tiny: TransformersEngine) -> None:
    asked = request("a" * (CONTEXT - 5), max_tokens=2**70)
    end = await end_of(tiny, asked)
    assert (end.finish_reason, len(end.output_tokens)) == ("length", 5)
    assert end.metrics.kv_used_tokens == CONTEXT


async def test_a_kv_budget_ends_it(tiny: TransformersEngine) -> None:
    end = await end_of(tiny, request("a" * 20, max_tokens=50, kv_budget_tokens=29))
    assert (end.finish_reason, end.metrics.kv_used_tokens) == ("length", 29)


async def test_the_figures_are_real(tiny: TransformersEngine) -> None:
    began = time.time()
    metrics = (await end_of(tiny, request("a" * 20, max_tokens=10))).metrics
    times = metrics.timestamps
    assert times is not None
    assert began - 1 < times.queued_at <= times.scheduled_at <= times.executed_at <= times.completed_at
    assert metrics.ttft_ms == pytest.approx((times.executed_at - times.queued_at) * 1000)
    assert metrics.kv_used_tokens == 30
    assert len(metrics.itl_list) == 9
    assert metrics.throughput_tps == pytest.approx(1000 / metrics.tpot_ms)
    assert metrics.peak_mem_mb > 50


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (request("a" * CONTEXT), ErrorCode.INVALID_ARGUMENT, "takes 512 tokens .* holds 512"),
        (chat("a" * 2000), ErrorCode.INVALID_ARGUMENT, "the prompt takes 20"),
        (request(""), ErrorCode.INVALID_ARGUMENT, "prompt: is empty"),
        (request("aaa", kv_budget_tokens=3), ErrorCode.RESOURCE_EXHAUSTED, "kv_budget_tokens is 3"),
        (request("\ud800"), ErrorCode.INVALID_ARGUMENT, "no Unicode text"),
        (request("a", tools=({"type": "function"},)), ErrorCode.NOT_IMPLEMENTED, "tools"),
        (request("a", response_format={"type": "json_object"}), ErrorCode.NOT_IMPLEMENTED, "response_format"),
        (request("a", sampling=Sampling(repeat_penalty=0)), ErrorCode.INVALID_ARGUMENT, "repeat_penalty"),
        (request("", messages=({"content": "a"},)), ErrorCode.INVALID_ARGUMENT, "role"),
        (request("", messages=({"role": "user"},)), ErrorCode.INVALID_ARGUMENT, "neither a text"),
        (
            request("", messages=({"role": "tester", "content": ""},)),
            ErrorCode.INVALID_ARGUMENT,
            "no such role: tester",
        ),
        (
            request("", messages=({"role": "user", "content": [{"type": "image_url"}]},)),
            ErrorCode.NOT_IMPLEMENTED,
            "holds more than text",
        ),
    ],
)
async def test_what_it_cannot_serve_is_refused_before_any_event_and_it_serves_on(
    tiny: TransformersEngine, asked: EngineRequest, code: ErrorCode, said: str
) -> None:
    with pytest.raises(CallError, match=said) as raised:
        await run(tiny, asked)
    assert raised.value.code is code
    assert (await end_of(tiny, request(max_tokens=2))).finish_reason == "length"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("mat1 and mat2"), "upstream_failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "resource_exhausted"),
    ],
)
async def test_a_model_that_fails_ends_with_an_error_and_the_next_call_is_clean(
    tiny: TransformersEngine, error: Exception, code: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    hook = model_of(tiny).lm_head.register_forward_pre_hook(fail)
    try:
        end = await end_of(tiny, request())
    finally:
        hook.remove()
    assert end.finish_reason == "error"
    assert end.error is not None
    assert (end.error.code, str(error) in end.error.message) == (code, True)
    assert (await end_of(tiny, request(max_tokens=2))).finish_reason == "length"
