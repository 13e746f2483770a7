"""The rules of the typed protocol v0.1 that no recorded case shows, and what penstock adds to it."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from penstock import errors
from penstock.errors import FAULTS, ErrorCode, RemoteProtocolError, StreamTruncated
from penstock.protocol import inference
from penstock.protocol.events import (
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineRequest,
    EngineStart,
    EventError,
    EventMetrics,
    EventTimestamps,
    EventUsage,
    Sampling,
)
from penstock.protocol.inference import (
    Error,
    Metrics,
    Request,
    StreamEvent,
    StreamEventDelta,
    StreamEventEnd,
    StreamEventStart,
    Timestamps,
    collect_response,
    dump_event,
    dump_event_json,
    from_event,
    parse_stream_event,
    request_to_engine,
    to_v01,
)

IDS: dict[str, Any] = {"request_id": "q", "trace_id": "t", "engine_id": "e"}
REQUEST: dict[str, Any] = {
    "request_id": "q",
    "trace_id": "t",
    "model": "m",
    "prompt": "p",
    "max_tokens": 8,
    "stream": True,
}
TIMES: dict[str, Any] = {"queued_at": 1.0, "scheduled_at": 1.5, "executed_at": 3.5, "completed_at": 8.0}
METRICS: dict[str, Any] = {"ttft_ms": 1, "throughput_tps": 2, "peak_mem_mb": 3, "error_rate": 0}
V01_CODES = {"invalid_argument", "resource_exhausted", "unavailable", "deadline_exceeded", "not_implemented"}

texts = st.text(max_size=5)
tokens = st.lists(st.integers(), max_size=3)
deltas = st.builds(
    StreamEventDelta, request_id=texts, trace_id=texts, engine_id=texts, chunk=texts, chunk_tokens=tokens
)
ends = st.builds(
    StreamEventEnd,
    request_id=texts,
    trace_id=texts,
    engine_id=texts,
    output_text=texts,
    output_tokens=tokens,
    finish_reason=st.sampled_from(["stop", "length", "error"]),
    metrics=st.just(Metrics(**METRICS)),
)


def mistakes(kind: Any, data: object, *, text: bool = False) -> list[tuple[tuple[int | str, ...], str]]:
    """Place and type of each mistake; empty if there is none."""
    adapter = TypeAdapter(kind)
    try:
        adapter.validate_json(str(data)) if text else adapter.validate_python(data)
    except ValidationError as error:
        return [(one["loc"], one["type"]) for one in error.errors()]
    return []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24.0", 24),
        ('"24"', 24),
        ('"24.0"', 24),
        ('" 7 "', 7),
        ("true", 1),
        ("1e1", 10),
        ("9" * 40, int("9" * 40)),
    ],
)
def test_int_is_read_laxly(text: str, value: int) -> None:
    read = Request.model_validate_json(json.dumps(REQUEST).replace("8", text))
    assert (type(read.max_tokens), read.max_tokens) == (int, value)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("24.5", "int_from_float"),
        ('"many"', "int_parsing"),
        ('"0x10"', "int_parsing"),
        ("null", "int_type"),
        ("[]", "int_type"),
        ("false", "greater_than"),
        ("0", "greater_than"),
        ("NaN", "finite_number"),
        ("1e999", "finite_number"),
    ],
)
def test_int_refuses(text: str, mistake: str) -> None:
    assert mistakes(Request, json.dumps(REQUEST).replace("8", text), text=True) == [
        (("max_tokens",), mistake)
    ]


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "YES", "On", "t", "Y", "1"])
def test_bool_reads_true(value: object) -> None:
    assert Request(**{**REQUEST, "stream": value}).stream is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "false", "No", "oFf", "F", "n", "0"])
def test_bool_reads_false(value: object) -> None:
    assert Request(**{**REQUEST, "stream": value}).stream is False


@pytest.mark.parametrize(
    ("value", "mistake"), [(2, "bool_parsing"), ("maybe", "bool_parsing"), (None, "bool_type")]
)
def test_bool_refuses(value: object, mistake: str) -> None:
    assert mistakes(Request, {**REQUEST, "stream": value}) == [(("stream",), mistake)]


@pytest.mark.parametrize("value", [(1, 2), deque([1, 2]), [True, "2"], range(1, 3)])
def test_list_takes_python_sequences(value: object) -> None:
    assert StreamEventDelta(**IDS, chunk="", chunk_tokens=value).chunk_tokens == [1, 2]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, "12", {"a": 1}])
def test_list_refuses(value: object) -> None:
    assert mistakes(StreamEventDelta, {**IDS, "chunk": "", "chunk_tokens": value}) == [
        (("chunk_tokens",), "list_type")
    ]


def test_str_takes_bytes_in_python_but_no_numbers() -> None:
    assert Request(**{**REQUEST, "prompt": "Grüße".encode()}).prompt == "Grüße"
    assert mistakes(Request, {**REQUEST, "prompt": 5}) == [(("prompt",), "string_type")]


def test_dict_wants_string_keys() -> None:
    assert mistakes(Request, {**REQUEST, "metadata": {1: 2}}) == [(("metadata", 1, "[key]"), "string_type")]


def test_all_mistakes_are_reported_in_the_order_of_the_fields() -> None:
    data = {"top_p": 0, "stream": 2, "max_tokens": 0, "model": None, "trace_id": "t", "prompt": "p"}
    assert mistakes(Request, data) == [
        (("request_id",), "missing"),
        (("model",), "string_type"),
        (("max_tokens",), "greater_than"),
        (("stream",), "bool_parsing"),
        (("top_p",), "greater_than"),
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e-9, "1e-9"),
        (2, "2.0"),
        (-0.0, "-0.0"),
        (1e20, "1e+20"),
        (0.00001, "0.00001"),
        (1e15, "1000000000000000.0"),
    ],
)
def test_numbers_are_written_as_v01_writes_them(number: float, text: str) -> None:
    assert Timestamps(**{**TIMES, "queued_at": number}).model_dump_json().startswith(f'{{"queued_at":{text},')


def test_big_integers_are_written_in_full() -> None:
    assert f'"max_tokens":{10**40},' in Request(**{**REQUEST, "max_tokens": 10**40}).model_dump_json()


def test_the_last_of_two_equal_keys_wins() -> None:
    text = json.dumps(REQUEST)[:-1] + ', "max_tokens": 9}'
    assert Request.model_validate_json(text).max_tokens == 9


@pytest.mark.parametrize("text", ["", "{", '{"a":1}x', "\ud800".encode("utf-8", "surrogatepass")])
def test_bad_json_is_one_mistake_at_the_top(text: str | bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        Request.model_validate_json(text)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [((), "json_invalid")]


def test_models_take_keywords_only_and_drop_what_they_do_not_know() -> None:
    with pytest.raises(TypeError):
        Request("q")  # type: ignore[call-arg, misc]
    assert not hasattr(Request(**REQUEST, later_field=1), "later_field")


def test_models_are_mutable_and_do_not_check_assignments() -> None:
    request = Request(**REQUEST)
    request.max_tokens = -1
    assert '"max_tokens":-1' in request.model_dump_json()


def test_each_metrics_has_its_own_list() -> None:
    Metrics(**METRICS).itl_list.append(1.0)
    assert Metrics(**METRICS).itl_list == []


def test_the_short_event_names_are_the_same_objects() -> None:
    assert inference.StartEvent is StreamEventStart
    assert inference.DeltaEvent is StreamEventDelta
    assert inference.EndEvent is StreamEventEnd


def test_there_is_one_error_code_and_it_prints_its_name() -> None:
    assert inference.ErrorCode is errors.ErrorCode
    code = Error(code="unavailable", message="").code  # type: ignore[arg-type]
    assert code is ErrorCode.UNAVAILABLE
    assert f"{code} {code!s}" == "ErrorCode.UNAVAILABLE ErrorCode.UNAVAILABLE"
    assert json.dumps(code) == '"unavailable"'
    assert mistakes(Error, {"code": "UNAVAILABLE", "message": ""}) == [(("code",), "enum")]


@pytest.mark.parametrize(
    "number", [math.nan, math.inf, -math.inf, "NaN", "-inf", "1e999", Decimal("NaN"), 10**400]
)
def test_a_float_is_finite_however_it_is_spelled(number: object) -> None:
    assert mistakes(Timestamps, {**TIMES, "queued_at": number}) != []


@dataclass
class Boxed:
    number: float


@pytest.mark.parametrize(
    ("metadata", "places"),
    [
        ({"a": math.nan}, [("a",)]),
        ({"a": 1, "b": [0, {"c": -math.inf}], "d": (math.nan,)}, [("b", 1, "c"), ("d", 0)]),
        ({"a": {math.inf: 1}}, [("a", "inf", "[key]")]),
        ({"a": deque([Decimal("Infinity")])}, [("a", 0)]),
        ({"a": Timestamps.model_construct(queued_at=math.nan)}, [("a", "queued_at")]),
        ({"a": Boxed(math.inf)}, [("a", "number")]),
    ],
)
def test_metadata_is_finite_to_its_leaves(
    metadata: dict[str, Any], places: list[tuple[int | str, ...]]
) -> None:
    found = mistakes(Request, {**REQUEST, "metadata": metadata})
    assert found == [(("metadata", *place), "finite_number") for place in places]


def test_metadata_keeps_text_that_looks_like_a_number() -> None:
    metadata = {"a": "NaN", "b": [1e300, None, True], "c": {}}
    assert Request(**REQUEST, metadata=metadata).metadata == metadata


def test_metadata_may_be_deep_or_contain_itself() -> None:
    loop: dict[str, Any] = {"number": math.nan}
    loop["self"] = loop
    assert mistakes(Request, {**REQUEST, "metadata": {"a": loop}}) == [
        (("metadata", "a", "number"), "finite_number")
    ]
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    assert mistakes(Request, {**REQUEST, "metadata": {"a": deep}}) == []


def test_the_spans_of_timestamps_are_in_seconds_and_off_the_wire() -> None:
    times = Timestamps(**TIMES)
    spans = (times.queue_wait_s, times.prefill_s, times.ttft_s, times.decode_s, times.total_s)
    assert spans == (0.5, 2.0, 2.5, 4.5, 7.0)
    assert times.model_dump() == TIMES
    assert set(Timestamps.model_json_schema()["properties"]) == set(TIMES)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("{}", ((), "union_tag_not_found")),
        ('{"event":null}', ((), "union_tag_invalid")),
        ('{"event":1}', ((), "union_tag_invalid")),
        ('{"event":"Start"}', ((), "union_tag_invalid")),
        ("[]", ((), "dict_type")),
        ("null", ((), "dict_type")),
        ('{"event":"start","request_id":"q","trace_id":"t"}', (("start", "engine_id"), "missing")),
    ],
)
def test_the_union_says_what_is_wrong_with_its_tag(text: str, mistake: object) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_stream_event(text)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [mistake]


def test_one_class_alone_may_lack_its_tag_but_not_have_a_wrong_one() -> None:
    assert StreamEventStart(**IDS).model_dump_json().startswith('{"event":"start",')
    assert mistakes(StreamEventStart, {**IDS, "event": "end"}) == [(("event",), "literal_error")]


def test_an_event_is_read_from_text_bytes_data_or_itself() -> None:
    event = StreamEventStart(**IDS, prompt_tokens=4)
    text = event.model_dump_json()
    for source in (text, text.encode(), bytearray(text.encode()), json.loads(text), event):
        assert parse_stream_event(source) == event


LATER = {"chunk": "content", "chunk_tokens": "content_tokens", "output_text": "content"}


@given(deltas | ends, st.sets(st.sampled_from(sorted(LATER))))
def test_the_later_spellings_are_read(event: StreamEventDelta | StreamEventEnd, renamed: set[str]) -> None:
    data = {LATER[name] if name in renamed else name: value for name, value in event.model_dump().items()}
    assert parse_stream_event(data) == event
    assert parse_stream_event(json.dumps(data)) == event


@given(deltas | ends)
def test_both_spellings_can_be_written(event: StreamEventDelta | StreamEventEnd) -> None:
    written = json.loads(dump_event_json(event, both_spellings=True))
    assert written == dump_event(event, both_spellings=True)
    assert [written[LATER[name]] for name in LATER if name in written] == [
        written[name] for name in LATER if name in written
    ]
    assert parse_stream_event(written) == event
    only_later = {name: value for name, value in written.items() if name not in LATER}
    assert parse_stream_event(only_later) == event


@given(deltas | ends)
def test_one_spelling_is_the_canonical_form(event: StreamEventDelta | StreamEventEnd) -> None:
    assert dump_event_json(event) == event.model_dump_json()
    assert list(dump_event(event)) == list(type(event).model_fields)
    assert not {"content", "content_tokens"} & set(dump_event(event))


def test_both_spellings_stand_after_the_fields_of_v01() -> None:
    event = StreamEventDelta(**IDS, chunk="é", chunk_tokens=[7])
    canonical = (
        '{"event":"delta","request_id":"q","trace_id":"t","engine_id":"e","chunk":"é","chunk_tokens":[7]'
    )
    assert dump_event_json(event) == canonical + "}"
    assert dump_event_json(event, both_spellings=True) == canonical + ',"content":"é","content_tokens":[7]}'
    start = StreamEventStart(**IDS)
    assert dump_event_json(start, both_spellings=True) == start.model_dump_json()


def test_the_v01_spelling_wins_even_when_it_is_wrong() -> None:
    both = {
        "event": "delta",
        **IDS,
        "chunk": "old",
        "content": "new",
        "chunk_tokens": [1],
        "content_tokens": [2],
    }
    event = parse_stream_event(both)
    assert isinstance(event, StreamEventDelta)
    assert (event.chunk, event.chunk_tokens) == ("old", [1])
    assert mistakes(StreamEvent, {**both, "chunk": None}) == [(("delta", "chunk"), "string_type")]


def test_a_text_that_is_missing_is_missed_by_its_v01_name() -> None:
    assert mistakes(StreamEventDelta, IDS) == [(("chunk",), "missing"), (("chunk_tokens",), "missing")]


@pytest.mark.parametrize("code", ErrorCode)
@pytest.mark.parametrize("retryable", [None, True, False])
def test_to_v01_knows_every_code(code: ErrorCode, retryable: bool | None) -> None:
    error = Error(code=code, message="why", retryable=retryable)
    mapped = to_v01(error)
    assert mapped.code.value in V01_CODES
    assert mapped.message == "why"
    assert error.code is code
    if code.value in V01_CODES:
        assert mapped == error
    else:
        assert mapped.retryable is (FAULTS[code].retryable if retryable is None else retryable)


@pytest.mark.parametrize(
    ("code", "nearest"),
    [
        ("cancelled", "unavailable"),
        ("internal", "unavailable"),
        ("command_failed", "unavailable"),
        ("upstream_failed", "unavailable"),
        ("kv_transfer_failed", "unavailable"),
        ("comm_timeout", "unavailable"),
        ("distributed_runtime_error", "unavailable"),
        ("permission_denied", "invalid_argument"),
        ("not_found", "invalid_argument"),
        ("conflict", "invalid_argument"),
        ("gone", "invalid_argument"),
        ("too_large", "resource_exhausted"),
        ("method_not_allowed", "not_implemented"),
    ],
)
def test_to_v01_maps_to_the_nearest(code: str, nearest: str) -> None:
    assert to_v01(Error(code=ErrorCode(code), message="")).code.value == nearest


METRICS_STRUCT = EventMetrics(
    ttft_ms=1.0, throughput_tps=2.0, peak_mem_mb=3, itl_list=[4.0], timestamps=EventTimestamps(**TIMES)
)
STREAM: list[EngineEvent] = [
    EngineStart(**IDS, prompt_tokens=2),
    EngineDelta(**IDS, chunk="a", chunk_tokens=[1]),
    EngineEnd(
        **IDS,
        output_text="a",
        output_tokens=[1],
        finish_reason="error",
        metrics=METRICS_STRUCT,
        error=EventError(code="comm_timeout", message="lost", retryable=True),
    ),
]


def test_engine_events_become_checked_events() -> None:
    start, delta, end = map(from_event, STREAM)
    assert start == StreamEventStart(**IDS, prompt_tokens=2)
    assert delta == StreamEventDelta(**IDS, chunk="a", chunk_tokens=[1])
    assert isinstance(end, StreamEventEnd)
    assert end.metrics.timestamps == Timestamps(**TIMES)
    assert end.error == Error(code=ErrorCode.COMM_TIMEOUT, message="lost", retryable=True)


@pytest.mark.parametrize("event", STREAM)
def test_an_event_with_nothing_beyond_v01_is_encoded_as_v01_has_it(event: EngineEvent) -> None:
    assert msgspec.json.encode(event).decode() == from_event(event).model_dump_json()


@pytest.mark.parametrize(
    ("event", "beyond"),
    [
        (STREAM[1], {"reasoning": "hm", "tool_calls": [{"index": 0}]}),
        (
            STREAM[2],
            {"usage": EventUsage(prompt_tokens=1, completion_tokens=2), "raw_finish_reason": "tool_calls"},
        ),
    ],
)
def test_what_engines_tell_beyond_v01_stands_behind_it_and_v01_readers_pass_over_it(
    event: EngineEvent, beyond: dict[str, Any]
) -> None:
    richer = msgspec.structs.replace(event, **beyond)
    encoded = json.loads(msgspec.json.encode(richer))
    plain = from_event(event)
    assert list(encoded) == [*type(plain).model_fields, *beyond]
    assert from_event(richer) == plain == parse_stream_event(msgspec.json.encode(richer))
    assert collect_response([richer if type(richer) is EngineEnd else STREAM[2]]) == collect_response(STREAM)


def test_an_engine_that_breaks_a_limit_is_found_out() -> None:
    broken = EventMetrics(ttft_ms=math.nan, throughput_tps=-1.0, peak_mem_mb=3)
    end = EngineEnd(**IDS, output_text="", output_tokens=[], finish_reason="stop", metrics=broken)
    with pytest.raises(ValidationError) as caught:
        from_event(end)
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [
        (("end", "metrics", "ttft_ms"), "finite_number"),
        (("end", "metrics", "throughput_tps"), "greater_than_equal"),
    ]


def test_a_request_becomes_an_engine_request() -> None:
    request = Request(**REQUEST, temperature=0.5, top_p=0.25, kv_budget_tokens=9, metadata={"a": 1})
    assert request_to_engine(request) == EngineRequest(
        **REQUEST,
        kv_budget_tokens=9,
        metadata={"a": 1},
        sampling=Sampling(temperature=0.5, top_p=0.25),
    )
    assert request_to_engine(Request(**REQUEST)).sampling == Sampling()


def test_a_response_is_collected_from_either_form_of_the_events() -> None:
    response = collect_response(STREAM)
    assert response == collect_response(map(from_event, STREAM))
    assert (response.request_id, response.trace_id, response.output_text) == ("q", "t", "a")
    assert (response.output_tokens, response.finish_reason) == ([1], "error")
    assert response.metrics.itl_list == [4.0]
    assert response.error is not None


@pytest.mark.parametrize("events", [[], STREAM[:1], STREAM[:2]])
def test_a_stream_without_its_end_is_truncated(events: list[EngineEvent]) -> None:
    with pytest.raises(StreamTruncated):
        collect_response(events)


def test_a_stream_that_goes_on_after_its_end_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="after its end"):
        collect_response([*STREAM, STREAM[-1]])


def test_a_stream_of_two_requests_is_refused() -> None:
    other = EngineDelta(request_id="other", trace_id="t", engine_id="e", chunk="", chunk_tokens=[])
    with pytest.raises(RemoteProtocolError, match="'other'"):
        collect_response([STREAM[0], other])
