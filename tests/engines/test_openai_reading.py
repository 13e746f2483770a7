"""What servers that speak OpenAI's protocol send, read into events."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from penstock.engines.openai_reading import OpenAIReading
from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import SseDecoder, SseEvent
from penstock.protocol.events import (
    EngineDelta,
    EngineEvent,
    EngineRequest,
    EngineStart,
    EventUsage,
)
from penstock.testing import check_events

REQUEST = EngineRequest(request_id="r", trace_id="t", model="m")
CALL = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "clock", "arguments": ""}}


def reading() -> OpenAIReading:
    return OpenAIReading(REQUEST, "openai:m", ["hidden.example"])


def piece(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def sent(data: object) -> SseEvent:
    return SseEvent(data if isinstance(data, bytes) else json.dumps(data).encode())


def read(*chunks: object) -> tuple[OpenAIReading, list[EngineEvent]]:
    made = reading()
    return made, [event for chunk in chunks for event in made.read(sent(chunk))]


def deltas(*chunks: object) -> list[EngineDelta]:
    return [event for event in read(*chunks)[1] if isinstance(event, EngineDelta)]


def test_the_first_chunk_is_the_start_and_text_the_deltas() -> None:
    made, events = read(
        piece(role="assistant", content=""), piece(content="a"), piece(content="b"), piece("stop"), b"[DONE]"
    )
    assert made.over
    end = made.end()
    check_events([*events, end], REQUEST, "openai:m")
    assert (end.output_text, end.finish_reason, end.raw_finish_reason) == ("ab", "stop", "stop")


def test_reasoning_goes_by_both_names_and_is_no_text() -> None:
    thought, other = deltas(piece(reasoning_content="hm"), piece(reasoning="so"))
    assert (thought.chunk, thought.reasoning) == ("", "hm")
    assert (other.chunk, other.reasoning) == ("", "so")


def test_calls_of_tools_are_passed_through() -> None:
    made, events = read(piece(tool_calls=[CALL]), piece("tool_calls"))
    assert isinstance(events[1], EngineDelta)
    assert events[1].tool_calls == [CALL]
    assert events[1].reasoning is UNSET
    end = made.end()
    assert (end.finish_reason, end.raw_finish_reason, end.output_text) == ("stop", "tool_calls", "")


def test_a_refusal_is_what_the_model_says() -> None:
    assert [delta.chunk for delta in deltas(piece(refusal="I cannot"))] == ["I cannot"]


def test_texts_are_read_as_well() -> None:
    chunks = [{"id": "c", "choices": [{"index": 0, "text": "a", "finish_reason": None}]}]
    chunks.append({"id": "c", "choices": [{"index": 0, "text": "b", "finish_reason": "length"}]})
    made, _ = read(*chunks)
    assert (made.end().output_text, made.end().finish_reason) == ("ab", "length")


def test_only_the_first_choice_is_the_answer() -> None:
    other = {"id": "c", "choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}]}
    made, events = read(other)
    assert [type(event) for event in events] == [EngineStart]
    assert made.finish_reason is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("tool_calls", "stop"),
        ("function_call", "stop"),
        ("eos", "stop"),
    ],
)
def test_reasons_are_mapped_and_kept(raw: str, reason: str) -> None:
    end = read(piece(raw))[0].end()
    assert (end.finish_reason, end.raw_finish_reason) == (reason, raw)


@pytest.mark.parametrize(("raw", "again"), [("content_filter", False), ("abort", True), ("error", True)])
def test_an_answer_the_server_cut_is_no_whole_one(raw: str, again: bool) -> None:
    made, _ = read(piece(content="a"), piece(raw), b"[DONE]")
    with pytest.raises(CallError) as raised:
        made.end()
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.UPSTREAM_FAILED, again)
    end = made.failed(raised.value)
    assert (end.finish_reason, end.raw_finish_reason, end.output_text) == ("error", raw, "a")


def test_usage_is_told_as_the_server_counts() -> None:
    usage = {
        "prompt_tokens": 8,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    end = read(piece("stop"), {"id": "c", "choices": [], "usage": usage})[0].end()
    assert end.usage == EventUsage(prompt_tokens=8, completion_tokens=3, cached_tokens=6, reasoning_tokens=1)
    assert end.metrics.kv_used_tokens == 11
    assert end.metrics.prefix_hit_rate == 0.75


@pytest.mark.parametrize("details", [{}, {"prompt_tokens_details": None}, {"prompt_tokens_details": {}}])
def test_what_is_not_counted_is_absent(details: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 8, "completion_tokens": 3, **details}
    end = read(piece("stop"), {"choices": None, "usage": usage})[0].end()
    assert end.usage == EventUsage(prompt_tokens=8, completion_tokens=3)
    untold = read(piece("stop"))[0].end()
    assert untold.usage is UNSET
    assert (untold.metrics.kv_used_tokens, untold.metrics.prefix_hit_rate) == (0, 0.0)


def test_an_empty_id_is_nobody_s_and_another_one_is_somebody_else_s() -> None:
    made, _ = read({"id": "", "choices": []}, piece(content="a"), {"id": None, "choices": []})
    with pytest.raises(CallError, match="mixed another answer") as raised:
        made.read(sent(piece(content="b") | {"id": "d"}))
    assert raised.value.code is ErrorCode.UPSTREAM_FAILED
    assert not made.over


def test_an_error_in_the_stream_is_the_server_s_last_word() -> None:
    made, _ = read(piece(content="a"))
    with pytest.raises(CallError, match="refused the request: no such … at …") as raised:
        made.read(sent({"error": {"message": "no such hidden.example at /srv/x", "type": "BadRequestError"}}))
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT
    assert made.over


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"choices":5}',
        b'{"id":[]}',
        b'{"id":"\xff"}',
    ],
)
def test_what_cannot_be_read_is_told(data: bytes) -> None:
    made = reading()
    with pytest.raises(CallError, match="cannot be read"):
        made.read(sent(data))
    with pytest.raises(CallError, match="cannot be read"):
        made.failed(CallError("x cannot be read"))


def test_an_end_without_a_reason_is_a_cut() -> None:
    for chunks in ((), (piece(content="a"),), (piece(content="a"), b"[DONE]")):
        with pytest.raises(CallError, match="broke its answer off") as raised:
            read(*chunks)[0].end()
        assert raised.value.code is ErrorCode.UPSTREAM_FAILED


SAID = (
    piece(role="assistant"),
    piece(content="für 🦊 "),
    piece(content="\u2028 x", reasoning="hm"),
    piece("stop"),
)
DATA = [json.dumps(chunk, ensure_ascii=False).encode() for chunk in SAID]
ANSWER = b"".join(b"data: %b\r\n\r\n" % data for data in [*DATA, b"[DONE]"])


def whole(parts: list[bytes]) -> tuple[list[Any], Any]:
    made, decoder, events = reading(), SseDecoder(), []
    for part in parts:
        for event in decoder.feed(part):
            events += made.read(event)
    end = made.end()
    return events, (end.output_text, end.finish_reason)


@given(st.sets(st.integers(min_value=1, max_value=len(ANSWER) - 1)))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(ANSWER)]
    parts = [ANSWER[a:b] for a, b in itertools.pairwise(places)]
    assert whole(parts) == whole([ANSWER])


def test_cut_at_every_single_byte_as_well() -> None:
    told = whole([ANSWER])
    assert told[1] == ("für 🦊 \u2028 x", "stop")
    assert whole([ANSWER[at : at + 1] for at in range(len(ANSWER))]) == told
    for at in range(1, len(ANSWER)):
        assert whole([ANSWER[:at], ANSWER[at:]]) == told


NAMES = st.sampled_from(["id", "choices", "delta", "content", "error", "usage", "index", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def outcome(chunks: list[bytes]) -> str:
    made = reading()
    try:
        for chunk in chunks:
            made.read(SseEvent(chunk))
        return made.end().engine_id
    except CallError as error:
        return error.message


@given(st.lists(JSON.map(lambda data: json.dumps(data).encode()) | st.binary(max_size=40), max_size=4))
def test_anything_is_read_or_told(chunks: list[bytes]) -> None:
    assert outcome(chunks).startswith("openai:m")
