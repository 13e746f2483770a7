"""Tokens become events: text, ids, ends and figures, with no model at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.engines.transformers_reading import TokenReading
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import (
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineRequest,
    EventUsage,
    Sampling,
)
from penstock.testing import check_events

END = 0
SAID = ["", "one", " two", " three", "", "\ufffd"]


class Clock:
    """Every look takes a second."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def decode(ids: Sequence[int]) -> str:
    return "".join(SAID[token] for token in ids)


def read(tokens: Sequence[int], stop: str = "", **fields: Any) -> tuple[list[EngineEvent], EngineEnd]:
    fields = {"max_tokens": 9, "prompt": "x"} | fields
    asked = EngineRequest(
        request_id="r", trace_id="t", model="m", sampling=Sampling(stop=(stop,) if stop else ()), **fields
    )
    reading = TokenReading(asked, "e", Clock(), decode, {END})
    reading.taken()
    events: list[EngineEvent] = [reading.begin(10, 20)]
    for token in tokens:
        assert not reading.ended
        events += reading.feed(token)
    return events, check_events(events, asked, "e")


def deltas(events: Sequence[EngineEvent]) -> list[tuple[str, list[int]]]:
    return [(event.chunk, event.chunk_tokens) for event in events if isinstance(event, EngineDelta)]


def test_an_end_token_is_no_part_of_the_answer() -> None:
    events, end = read([1, 2, END])
    assert deltas(events) == [("one", [1]), (" two", [2])]
    assert (end.finish_reason, end.metrics.kv_used_tokens) == ("stop", 13)
    assert end.usage == EventUsage(prompt_tokens=10, completion_tokens=3)  # it was computed all the same


def test_an_answer_may_be_empty() -> None:
    events, end = read([END])
    assert (deltas(events), end.finish_reason, end.output_text) == ([], "stop", "")


@pytest.mark.parametrize("fields", [{"max_tokens": 2}, {"kv_budget_tokens": 12}])
def test_a_limit_ends_it_with_length(fields: dict[str, Any]) -> None:
    events, end = read([1, 2], **fields)
    assert deltas(events) == [("one", [1]), (" two", [2])]
    assert end.finish_reason == "length"


def test_tokens_without_text_come_with_the_next_ones() -> None:
    events, _ = read([4, 1, 4, END])
    assert deltas(events) == [("one", [4, 1]), ("", [4])]


def test_a_stop_string_over_two_tokens_ends_it_before() -> None:
    events, end = read([1, 2, 3], stop="o thr")
    assert [text for text, _ in deltas(events)] == ["one", " tw", ""]
    assert end.output_tokens == [1, 2, 3]
    assert end.finish_reason == "stop"


def test_text_held_back_comes_at_the_end() -> None:
    events, end = read([1, 2, 5], stop=" two\ufffd!", max_tokens=3)
    assert end.output_text == "one two\ufffd"
    assert end.finish_reason == "length"
    assert deltas(events)[-1] == (" two\ufffd", [2, 5])


def test_times_are_those_of_the_tokens() -> None:
    _, end = read([1, 2, 3, END])
    assert end.metrics.timestamps is not None
    # Made at 101, in a slot at 102; tokens from 103 on.
    assert end.metrics.timestamps.queued_at == 101
    assert end.metrics.timestamps.scheduled_at == 102
    assert end.metrics.timestamps.executed_at == 103
    assert end.metrics.timestamps.completed_at == 106
    assert (end.metrics.ttft_ms, end.metrics.tpot_ms, end.metrics.throughput_tps) == (2000, 1000, 1)
    assert end.metrics.itl_list == [1000, 1000, 1000]


def reading(**fields: Any) -> TokenReading:
    asked = EngineRequest(request_id="r", trace_id="t", model="m", prompt="x", **fields)
    return TokenReading(asked, "e", Clock(), decode, {END})


@pytest.mark.parametrize(
    ("prompt_tokens", "fields", "code", "said"),
    [
        (20, {}, ErrorCode.INVALID_ARGUMENT, "takes 20 tokens and the model's context holds 20"),
        (0, {}, ErrorCode.INVALID_ARGUMENT, "no tokens"),
        (10, {"kv_budget_tokens": 10}, ErrorCode.RESOURCE_EXHAUSTED, "kv_budget_tokens is 10"),
    ],
)
def test_no_room_for_an_answer_is_refused(
    prompt_tokens: int, fields: dict[str, Any], code: ErrorCode, said: str
) -> None:
    with pytest.raises(CallError, match=said) as raised:
        reading(**fields).begin(prompt_tokens, 20)
    assert raised.value.code is code


def test_a_model_without_a_known_context_is_bounded_by_the_request_alone() -> None:
    unbounded = reading(max_tokens=7)
    unbounded.begin(10**6, None)
    assert unbounded.limit == 7


def test_a_failure_is_raised_before_the_start_and_is_the_end_after_it() -> None:
    failed = reading()
    error = CallError("no memory", ErrorCode.RESOURCE_EXHAUSTED)
    with pytest.raises(CallError, match="no memory"):
        failed.failed(error)
    failed.begin(1, 20)
    end = failed.failed(error)
    assert end.error is not None
    assert (end.finish_reason, end.error.code) == ("error", "resource_exhausted")
