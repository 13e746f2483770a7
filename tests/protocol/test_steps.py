"""Frames of a workflow, as they stand on the wire."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.protocol.call import Call, CallLog
from penstock.protocol.messages import CancelReason, CancelTimes, decode_frame
from penstock.protocol.steps import StepItem, WorkflowWriter

NOW = 1704067200.0


def writer() -> WorkflowWriter:
    return WorkflowWriter("w", "t", "0" * 32)


def test_every_frame_of_a_workflow() -> None:
    w = writer()
    identity = '"timestamp":1704067200.0,"version":"v2","workflow_id":"w",'
    assert w.accepted(0, NOW).decode() == (
        f'{{"type":"task","status":"accepted",{identity}"task_id":"t","seq":0,"request_id":"{"0" * 32}"}}'
    )
    assert w.note("queued", {"step": "a", "position": 2}, 1, NOW).decode() == (
        f'{{"type":"task","status":"queued",{identity}"step":"a","task_id":"t","seq":1,"position":2}}'
    )
    assert w.note("progress", {"step": "a", "data": {"fraction": 0.5}}, 2, NOW).decode() == (
        f'{{"type":"task","status":"progress","data":{{"fraction":0.5}},{identity}'
        '"step":"a","task_id":"t","seq":2}'
    )
    assert w.item(StepItem("a", b'{"text":"x"}'), 3, NOW).decode() == (
        f'{{"type":"task","status":"streaming","data":{{"text":"x"}},{identity}'
        '"step":"a","task_id":"t","seq":3}'
    )
    assert w.completed(b'{"steps":{}}', {}, 4, NOW).decode() == (
        f'{{"type":"task","status":"completed","data":{{"steps":{{}}}},{identity}"task_id":"t","seq":4}}'
    )
    error = CallError("step a: no", ErrorCode.COMMAND_FAILED, details=[{"step": "a"}])
    assert w.error(error, 4, NOW).decode() == (
        f'{{"type":"task","status":"error","error":"step a: no",{identity}"task_id":"t","seq":4,'
        '"code":"command_failed","retryable":false,"details":[{"step":"a"}]}'
    )
    assert w.cancelled(CancelReason.CALLER, CancelTimes(NOW), 4, NOW).decode() == (
        f'{{"type":"task","status":"cancelled",{identity}"task_id":"t","seq":4,'
        '"reason":"caller","cancel":{"requested_at":1704067200.0}}'
    )


steps = st.sampled_from(["a", "b", "c_1", "Z-9"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.tuples(steps, values, st.floats(0, 1e3)), max_size=20))
def test_a_log_of_steps_is_a_call_like_any_other(items: list[tuple[str, object, float]]) -> None:
    log = CallLog(writer(), NOW)
    for step, value, moment in items:
        log.item(StepItem(step, json.dumps(value).encode()), NOW + moment)
    log.complete({"steps": {}}, {}, NOW, has_answer=True)
    call = Call()
    frames = [decode_frame(line) for line in log.read(-1, 1 << 30)]
    for frame in frames:
        call.observe(frame)
    assert call.state.label == "completed"
    assert [(frame.step, frame.data) for frame in frames[1:-1]] == [(step, value) for step, value, _ in items]
    assert {(frame.version, frame.workflow_id, frame.command) for frame in frames} == {("v2", "w", None)}
    stamps = [frame.timestamp for frame in frames]
    assert stamps == sorted(stamps)
