"""Chunks as llama.cpp sends them, read into events."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from penstock.engines.llamacpp_reading import LlamaReading, peak_mem_mb
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineRequest, Sampling
from penstock.testing import check_events

TOKENS = {"🌟": [10813, 230, 249]}


def request(**fields: Any) -> EngineRequest:
    return EngineRequest(request_id="r", trace_id="t", model="m", prompt="p", **fields)


def reading(asked: EngineRequest | None = None) -> LlamaReading:
    """A reading whose clock goes on by a second at every look."""
    clock = itertools.count(1000)
    return LlamaReading(
        asked or request(), "llamacpp:m", lambda: float(next(clock)), lambda text: TOKENS.get(text, [])
    )


def timings(predicted: int) -> dict[str, float]:
    return {
        "cache_n": 24,
        "prompt_n": 8,
        "prompt_ms": 55.0,
        "predicted_n": predicted,
        "predicted_ms": 100.0 * (predicted - 1),
    }


def progress(done: int, total: int = 32) -> dict[str, Any]:
    return {
        "choices": [{"text": "", "logprobs": None, "finish_reason": None}],
        "timings": timings(0) | {"predicted_ms": 0.0},
        "prompt_progress": {"total": total, "cache": 24, "processed": done},
    }


def token(text: str, token_id: int, predicted: int) -> dict[str, Any]:
    logprobs = {"content": [{"id": token_id}]}
    return {
        "choices": [{"text": text, "logprobs": logprobs, "finish_reason": None}],
        "timings": timings(predicted),
    }


def last(reason: str, predicted: int) -> dict[str, Any]:
    return {
        "choices": [{"text": "", "logprobs": None, "finish_reason": reason}],
        "timings": timings(predicted),
    }


def feed(one: LlamaReading, *chunks: dict[str, Any]) -> list[EngineEvent]:
    return [event for chunk in chunks for event in one.feed(chunk)]


def test_a_whole_answer() -> None:
    chunks = [progress(24), progress(32), token("He", 5, 1), token("llo", 6, 2), last("length", 2)]
    events = feed(reading(), *chunks)
    end = check_events(events, request(), "llamacpp:m")
    assert events[0].prompt_tokens == 32  # type: ignore[union-attr]
    assert (end.output_text, end.output_tokens, end.finish_reason) == ("Hello", [5, 6], "length")


def test_metrics_are_those_of_llama_cpp() -> None:
    chunks = [progress(32), token("a", 1, 1), token("b", 2, 2), token("c", 3, 3), last("stop", 3)]
    end = feed(reading(), *chunks)[-1]
    assert isinstance(end, EngineEnd)
    metrics = end.metrics
    # The clock: queued 1000, first chunk 1001, tokens 1002, 1003, 1004, end 1005.
    assert metrics.ttft_ms == 2000.0
    assert metrics.itl_list == [1000.0, 1000.0]
    assert metrics.tbt_ms == 1000.0
    assert (metrics.tpot_ms, metrics.throughput_tps) == (100.0, 10.0)
    assert metrics.prefix_hit_rate == 0.75
    assert metrics.kv_used_tokens == 35
    assert metrics.peak_mem_mb == peak_mem_mb() > 0
    times = metrics.timestamps
    assert times is not None
    assert (times.queued_at, times.scheduled_at, times.executed_at, times.completed_at) == (
        1000.0,
        1001.0,
        1002.0,
        1005.0,
    )
    assert metrics.kv_used_bytes == metrics.evict_count == 0


def test_a_character_of_several_tokens_has_all_its_ids() -> None:
    end = feed(reading(), progress(32), token("🌟", 249, 3), token("!", 9, 4), last("stop", 4))[-1]
    assert isinstance(end, EngineEnd)
    assert end.output_tokens == [10813, 230, 249, 9]


@pytest.mark.parametrize("chunk", [token("🌟", 7, 3), token("🌟", 249, 2), token("🌙", 249, 3)])
def test_ids_the_tokenizer_does_not_confirm_are_not_guessed(chunk: dict[str, Any]) -> None:
    end = feed(reading(), progress(32), chunk, last("stop", 3))[-1]
    assert isinstance(end, EngineEnd)
    assert end.output_tokens == [chunk["choices"][0]["logprobs"]["content"][0]["id"]]


def test_a_token_without_text_keeps_its_id() -> None:
    events = feed(reading(), progress(32), token("Yes", 5, 1), token("", 2, 2), last("stop", 2))
    end = check_events(events, request(), "llamacpp:m")
    assert (end.output_text, end.output_tokens) == ("Yes", [5, 2])


def test_a_stop_string_ends_it_and_is_not_shown() -> None:
    asked = request(sampling=Sampling(stop=("END",)))
    one = reading(asked)
    events = feed(one, progress(32), token("ab E", 1, 1), token("N", 2, 2), token("D tail", 3, 3))
    end = check_events(events, asked, "llamacpp:m")
    assert one.ended
    assert (end.output_text, end.finish_reason, end.output_tokens) == ("ab ", "stop", [1, 2, 3])


def test_text_held_for_a_stop_string_is_shown_when_it_ends_otherwise() -> None:
    asked = request(sampling=Sampling(stop=("END",)))
    events = feed(reading(asked), progress(32), token("ab EN", 1, 1), last("length", 1))
    end = check_events(events, asked, "llamacpp:m")
    assert (end.output_text, end.finish_reason) == ("ab EN", "length")


def test_a_chat_chunk_says_the_same_in_another_place() -> None:
    chunk = token("", 5, 1)
    chunk["choices"][0] = {"delta": {"content": "Hi"}, "logprobs": {"content": [{"id": 5}]}}
    role = progress(32)
    role["choices"][0] = {"delta": {"role": "assistant", "content": None}, "finish_reason": None}
    deltas = [event for event in feed(reading(), role, chunk) if isinstance(event, EngineDelta)]
    assert [(delta.chunk, delta.chunk_tokens) for delta in deltas] == [("Hi", [5])]


def test_a_prompt_too_long_says_how_much() -> None:
    error = {
        "error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 6001, "n_ctx": 4096}
    }
    with pytest.raises(CallError, match=r"6001 tokens .* 4096") as raised:
        feed(reading(), error)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("code", "expected"), [(400, ErrorCode.INVALID_ARGUMENT), (500, ErrorCode.UPSTREAM_FAILED)]
)
def test_an_error_before_the_start_is_raised(code: int, expected: ErrorCode) -> None:
    with pytest.raises(CallError, match="no luck") as raised:
        feed(reading(), {"error": {"code": code, "message": "no luck"}})
    assert raised.value.code is expected


def test_an_error_after_the_start_is_the_end() -> None:
    one = reading()
    events = feed(one, progress(32), token("a", 1, 1), {"error": {"code": 500, "message": "no luck"}})
    end = check_events(events, request(), "llamacpp:m")
    assert one.ended
    assert end.finish_reason == "error"
    assert end.error is not None
    assert (end.error.code, end.error.message) == ("upstream_failed", "llama.cpp: no luck")
    assert end.output_text == "a"


def test_a_budget_the_prompt_fills_is_refused() -> None:
    with pytest.raises(CallError, match="kv_budget_tokens is 32") as raised:
        feed(reading(request(kv_budget_tokens=32)), progress(24))
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.RESOURCE_EXHAUSTED, False)


def test_a_budget_ends_the_answer_with_length() -> None:
    asked = request(kv_budget_tokens=34)
    events = feed(reading(asked), progress(32), token("a", 1, 1), token("b", 2, 2))
    assert check_events(events, asked, "llamacpp:m").finish_reason == "length"


def test_an_answer_of_one_token_has_a_finite_rate() -> None:
    end = feed(reading(), progress(32), token("a", 1, 1), last("length", 1))[-1]
    assert isinstance(end, EngineEnd)
    assert end.metrics.throughput_tps == 0.5
