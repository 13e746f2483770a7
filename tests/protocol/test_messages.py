"""Frames as bytes, requests as they are checked: golden files, key order, time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.errors import CallError, CommandError, ErrorCode, ReplayTruncated
from penstock.protocol.events import EngineReport, EventMetrics, EventUsage
from penstock.protocol.messages import (
    CancelReason,
    CancelTimes,
    Frame,
    FrameWriter,
    OnDisconnect,
    Start,
    WireForm,
    decode_frame,
    error_envelope,
)

GOLDEN = Path(__file__).parent / "golden"
NOW = 1704067200.125
REQUEST_ID = "9f86d081884c7d659a2feaa0c55ad015"
MISSING = CallError(
    "prompt: field required",
    ErrorCode.INVALID_ARGUMENT,
    details=[{"path": ["input", "prompt"], "reason": "missing"}],
)
BUSY = CallError("predict is busy", ErrorCode.RESOURCE_EXHAUSTED, retry_after_s=3)
GONE = ReplayTruncated("frames before 7 are gone", first_seq=7)
TIMES = CancelTimes(1704067200.1, 1704067200.105)

Write = Callable[[FrameWriter], bytes]
VARIANTS: dict[str, Write] = {
    "accepted": lambda w: w.accepted(0, NOW),
    "queued": lambda w: w.note("queued", {"position": 3}, 1, NOW),
    "progress": lambda w: w.note("progress", {"fraction": 0.4, "message": "loading"}, 1, NOW),
    "streaming": lambda w: w.item({"text": "Hellö", "chunk": "Hellö", "finished": False}, 1, NOW),
    "streaming_scalar": lambda w: w.item(0.5, 1, NOW),
    "completed_stream": lambda w: w.completed(None, {"items": 2, "total_ms": 12.5}, 3, NOW),
    "completed_answer": lambda w: w.completed(b'{"a":null}', {}, 1, NOW),
    "completed_null": lambda w: w.completed(b"null", {}, 1, NOW),
    "error": lambda w: w.error(CommandError("the model is out of ideas"), 2, NOW),
    "error_details": lambda w: w.error(MISSING, 1, NOW),
    "error_retry": lambda w: w.error(BUSY, 1, NOW),
    "error_gone": lambda w: w.error(GONE, 1, NOW),
    "cancelled": lambda w: w.cancelled(CancelReason.CALLER, TIMES, 2, NOW),
    "cancelled_undelivered": lambda w: w.cancelled(
        CancelReason.DISCONNECT, CancelTimes(1704067200.1), 2, NOW
    ),
}


def writer(form: WireForm = WireForm.V2) -> FrameWriter:
    return FrameWriter(form, "predict", "predict_123", REQUEST_ID)


# -- golden files: a difference here is a change of the protocol ----------------------------------------


@pytest.mark.parametrize("form", list(WireForm))
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_frame_is_written_byte_for_byte_as_its_golden_file(form: WireForm, variant: str) -> None:
    expected = (GOLDEN / form.value / f"{variant}.json").read_bytes().removesuffix(b"\n")
    assert VARIANTS[variant](writer(form)) == expected


def test_every_golden_file_has_its_variant() -> None:
    found = {f"{path.parent.name}/{path.stem}" for path in GOLDEN.rglob("*.json")}
    assert found == {f"{form.value}/{variant}" for form in WireForm for variant in VARIANTS}


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.json")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_golden_file_still_parses_and_says_the_same(path: Path) -> None:
    raw = json.loads(path.read_bytes())
    frame = decode_frame(path.read_bytes())
    known = {name: getattr(frame, name) for name in Frame.__struct_fields__ if name in raw}
    assert msgspec.to_builtins(known) == raw
    absent = set(Frame.__struct_fields__) - raw.keys() - {"data"}
    assert all(not getattr(frame, name) for name in absent)
    assert (frame.data is msgspec.UNSET) is ("data" not in raw)


HEAD = ["type", "status", "data", "error", "timestamp"]
V2_ONLY = ["version", "command"]
TAIL = [
    "task_id",
    "seq",
    "request_id",
    "position",
    "code",
    "retryable",
    "details",
    "retry_after_s",
    "first_seq",
]
TAIL += ["reason", "cancel", "metrics"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_stand_in_the_order_of_the_page_and_absent_ones_are_left_out(variant: str) -> None:
    v1, v2 = (list(json.loads(VARIANTS[variant](writer(form)))) for form in WireForm)
    assert v1 == [key for key in HEAD + TAIL if key in v1]
    assert v2 == [key for key in HEAD + V2_ONLY + TAIL if key in v2]
    assert v2[: len(v2)] == v1[: v1.index("task_id")] + V2_ONLY + v1[v1.index("task_id") :]


# -- time ----------------------------------------------------------------------------------------------


def stamps(times: list[float]) -> list[float]:
    w = writer()
    frames = [w.accepted(0, times[0])]
    frames += [w.item(1, seq, now) for seq, now in enumerate(times[1:-1], 1)]
    frames.append(w.completed(None, {}, len(times) - 1, times[-1]))
    return [json.loads(frame)["timestamp"] for frame in frames]


def test_time_within_a_call_never_goes_back_even_if_the_clock_does() -> None:
    seen = stamps([100.0, 100.5, 40.0, 100.4, 101.0, 99.0])
    assert seen == [100.0, 100.5, 100.5, 100.5, 101.0, 101.0]


def test_time_is_shown_to_the_millisecond() -> None:
    assert stamps([1704067200.12345, 1704067200.2, 1704067200.20123]) == [
        1704067200.123,
        1704067200.2,
        1704067200.201,
    ]


def test_a_clock_that_stands_at_zero_still_gives_every_frame_its_time() -> None:
    assert stamps([0.0, 0.0, 0.0]) == [0.0, 0.0, 0.0]


# -- envelopes and metrics -----------------------------------------------------------------------------


def test_an_envelope_is_an_error_frame_of_no_call() -> None:
    envelope = error_envelope(BUSY, NOW, task_id="t", version=None)
    assert json.loads(envelope) == {
        "type": "task",
        "status": "error",
        "error": "predict is busy",
        "timestamp": 1704067200.125,
        "task_id": "t",
        "code": "resource_exhausted",
        "retryable": True,
        "retry_after_s": 3,
    }
    assert decode_frame(envelope).code == "resource_exhausted"


def test_an_error_that_says_whether_to_retry_overrides_the_table() -> None:
    error = CallError("no", ErrorCode.UNAVAILABLE, retryable=False)
    assert json.loads(writer().error(error, 1, NOW))["retryable"] is False


def test_an_engines_measurements_keep_their_names() -> None:
    metrics = EventMetrics(ttft_ms=1.5, throughput_tps=100.0, peak_mem_mb=12)
    usage = EventUsage(prompt_tokens=3, completion_tokens=2)
    plain = EngineReport(metrics=metrics, usage=usage, finish_reason="length").fields()
    assert (plain["prompt_tokens"], plain["completion_tokens"], plain["finish_reason"]) == (3, 2, "length")
    assert (plain["ttft_ms"], plain["throughput_tps"], plain["peak_mem_mb"]) == (1.5, 100.0, 12)
    assert plain.keys().isdisjoint(("timestamps", "component_trace", "cached_tokens"))  # absent, not null


# -- what is no frame ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"type":"task"}',
        b'{"type":"task","status":5}',
        b'{"type":"task","status":"streaming","seq":"1"}',
        b'{"type":"task","status":"streaming","timestamp":null}',
        b"\xff\xfe",
        "\ud800",
        b'{"type":"task","status":"\xff"}',
        b"[" * 100_000,
        b'{"type":"task","status":"streaming","data":' + b"[" * 100_000,
    ],
)
def test_junk_is_a_typed_error(junk: bytes | str) -> None:
    with pytest.raises(CallError, match="not a frame") as refused:
        decode_frame(junk)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_fields_of_a_later_version_are_skipped() -> None:
    frame = decode_frame(b'{"type":"task","status":"streaming","seq":4,"mood":"good"}')
    assert frame == Frame(type="task", status="streaming", seq=4)


# -- requests ------------------------------------------------------------------------------------------

LONGEST = "a" * 128


@pytest.mark.parametrize("task_id", ["a", "0", "_", "a.b:c-d_e", "A9", LONGEST])
def test_task_ids_that_may_be_used(task_id: str) -> None:
    assert Start(task_id=task_id).task_id == task_id


@pytest.mark.parametrize(
    "task_id",
    ["", ".a", "-a", ":a", "a b", "a/b", "../a", "a\n", "a\x00", "ä", "٣", "a%2f", LONGEST + "a"],
)
def test_task_ids_that_are_refused(task_id: str) -> None:
    with pytest.raises(CallError, match="task_id is 1 to 128") as refused:
        Start(task_id=task_id)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert refused.value.details == ({"path": ["task_id"], "reason": "pattern"},)


@pytest.mark.parametrize("timeout_s", [0.001, 1, 604800])
def test_timeouts_that_may_be_asked_for(timeout_s: float) -> None:
    assert Start(timeout_s=timeout_s).timeout_s == timeout_s


@pytest.mark.parametrize("timeout_s", [0, -1, 604800.1, float("inf"), float("nan"), float("-inf"), 10**400])
def test_timeouts_that_are_refused(timeout_s: float) -> None:
    with pytest.raises(CallError, match="timeout is more than 0") as refused:
        Start(timeout_s=timeout_s)
    assert refused.value.details == ({"path": ["timeout"], "reason": "range"},)


@pytest.mark.parametrize(
    ("wire", "grace_s"),
    [
        ("cancel", 0.0),
        ("continue", None),
        ({"grace_s": 30}, 30),
        ({"grace_s": 0.5}, 0.5),
        ({"grace_s": 0}, 0),
    ],
)
def test_on_disconnect_as_it_may_be_said(wire: object, grace_s: float | None) -> None:
    assert OnDisconnect.parse(wire).grace_s == grace_s


BAD_GRACES: list[Any] = [-1, 604801, float("nan"), float("inf"), 10**400, True, "30", None, [1]]


@pytest.mark.parametrize(
    "wire",
    ["", "Cancel", None, 5, True, [], {}, {"grace": 1}, {"grace_s": 1, "more": 2}]
    + [{"grace_s": grace} for grace in BAD_GRACES],
)
def test_on_disconnect_as_it_is_refused(wire: object) -> None:
    with pytest.raises(CallError, match="on_disconnect") as refused:
        OnDisconnect.parse(wire)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
