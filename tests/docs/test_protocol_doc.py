"""docs/protocol.md says what the code does: every sample and every table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest

from docs.pages import DOCS, Fence, codes, fences, table
from penstock.calls.inputs import MAX_WAITING
from penstock.errors import FAULTS, CallError, ReplayTruncated
from penstock.protocol.call import _NEXT, Call, State
from penstock.protocol.codec import NdjsonDecoder, SseDecoder
from penstock.protocol.messages import (
    MAX_TASK_ID,
    MAX_TIMEOUT_S,
    CancelReason,
    Frame,
    FrameWriter,
    WireForm,
    decode_frame,
    error_envelope,
)
from penstock.protocol.requests import (
    CallBody,
    CommandBody,
    Message,
    WorkflowBody,
    read_body,
    read_message,
    read_workflow_body,
)
from penstock.protocol.steps import StepItem, WorkflowWriter
from penstock.protocol.values import MAX_DEPTH, encode_value
from penstock.runtime.command import DEFAULT_ASYNC_CONCURRENCY, DEFAULT_QUEUE, DEFAULT_SYNC_CONCURRENCY
from penstock.server.descriptors import MOST_CONNECTIONS
from penstock.server.settings import ServerSettings
from penstock.server.websocket import MAX_CALLS, MAX_CORRELATION

PAGE = DOCS / "protocol.md"
FENCES = fences(PAGE)
GOLDEN = DOCS.parent / "tests" / "protocol" / "golden"
MESSAGES = {kind.__struct_config__.tag: kind for kind in get_args(Message)}
REQUEST_ID = "9f86d081884c7d659a2feaa0c55ad015"


def samples(kind: str) -> list[Any]:
    """Return the blocks of a kind, to be tested each for itself."""
    found = [fence for fence in FENCES if fence.info.split()[:2] == kind.split()]
    assert found, f"no {kind} is shown"
    return [pytest.param(fence, id=f"line {fence.line}") for fence in found]


def lines(kind: str) -> list[Any]:
    """Return the lines of all blocks of a kind."""
    return [
        pytest.param(line, id=f"{param.id} {number}")
        for param in samples(kind)
        for number, line in enumerate(param.values[0].body.splitlines())
    ]


# -- the page --------------------------------------------------------------------------------------------


def test_every_sample_is_of_a_kind_that_is_checked() -> None:
    kinds = {"frames", "stream", "envelopes", "body", "answer", "to-server", "to-client"}
    unknown = [fence.place for fence in FENCES if fence.info != "sse" and _kind(fence) not in kinds]
    assert unknown == []


def _kind(fence: Fence) -> str:
    language, _, kind = fence.info.partition(" ")
    return kind.split(" ")[0] if language == "json" else ""


def test_clauses_are_numbered_in_order() -> None:
    text = PAGE.read_text(encoding="utf-8")
    due, number = [], 0
    found = re.findall(r"^(?:## (\d+)\. |\*\*(\d+\.\d+)\*\* )", text, re.MULTILINE)
    section = 0
    for heading, _ in found:
        section, number = (section + 1, 0) if heading else (section, number + 1)
        due.append((str(section), "") if heading else ("", f"{section}.{number}"))
    assert found == due
    assert section > 10


def test_clauses_that_are_referred_to_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    clauses = set(re.findall(r"^\*\*(\d+\.\d+)\*\*", text, re.MULTILINE))
    said = re.findall(
        r"(?<=[( ])(\d{1,2}\.\d{1,2})(?=[),: ]|\.\s)", re.sub(r"```.*?```", "", text, flags=re.S)
    )
    assert set(said) - clauses <= {"0.1"}
    assert len(said) > 10


# -- frames ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*lines("json frames"), *lines("json stream")])
def test_a_frame_is_byte_for_byte_what_the_server_writes(line: str) -> None:
    if '"keepalive"' not in line:
        assert _written_again(decode_frame(line)).decode() == line


def _written_again(frame: Frame) -> bytes:
    writer = _writer(frame)
    seq, now = frame.seq, frame.timestamp
    assert seq is not None
    if frame.status == "streaming":
        step = frame.step
        data = frame.data if step is None else StepItem(step, encode_value(frame.data))
        return writer.item(data, seq, now)
    return _WRITE[frame.status](writer, frame, seq, now)


def _writer(frame: Frame) -> FrameWriter:
    task_id, request_id = frame.task_id or "", frame.request_id or REQUEST_ID
    if frame.workflow_id is not None:
        return WorkflowWriter(frame.workflow_id, task_id, request_id)
    form = WireForm.V1 if frame.version is None else WireForm.V2
    return FrameWriter(form, frame.command or "", task_id, request_id)


def _note(writer: FrameWriter, frame: Frame, seq: int, now: float) -> bytes:
    if frame.status == "queued":
        return writer.note("queued", {"position": frame.position, **_step(frame)}, seq, now)
    about = frame.data if frame.step is None else {"data": frame.data, **_step(frame)}
    return writer.note("progress", about, seq, now)


def _step(frame: Frame) -> dict[str, str]:
    return {} if frame.step is None else {"step": frame.step}


def _completed(writer: FrameWriter, frame: Frame, seq: int, now: float) -> bytes:
    answer = None if frame.data is msgspec.UNSET else encode_value(frame.data)
    return writer.completed(answer, frame.metrics or {}, seq, now)


def _error_of(frame: Frame) -> CallError:
    if frame.first_seq is not None:
        return ReplayTruncated(frame.error or "", first_seq=frame.first_seq)
    return CallError(
        frame.error or "",
        frame.code,
        retryable=frame.retryable,
        details=frame.details,
        retry_after_s=None if frame.retry_after_s is None else round(frame.retry_after_s),
    )


def _cancelled(writer: FrameWriter, frame: Frame, seq: int, now: float) -> bytes:
    assert frame.cancel is not None
    return writer.cancelled(CancelReason(frame.reason), frame.cancel, seq, now)


_WRITE: dict[str, Callable[[FrameWriter, Frame, int, float], bytes]] = {
    "accepted": lambda writer, _, seq, now: writer.accepted(seq, now),
    "queued": _note,
    "progress": _note,
    "completed": _completed,
    "error": lambda writer, frame, seq, now: writer.error(_error_of(frame), seq, now),
    "cancelled": _cancelled,
}


def test_every_kind_of_frame_is_shown_with_the_keys_of_its_golden_file() -> None:
    shown = {tuple(json.loads(param.values[0])) for param in lines("json frames")}
    golden = {
        path: tuple(json.loads(path.read_bytes()))
        for path in GOLDEN.glob("*/*.json")
        if not path.stem.startswith(("error_", "cancelled_"))  # with more keys, and shown once
    }
    assert len(golden) >= 16
    assert [path.name for path, keys in golden.items() if keys not in shown] == []


def test_every_status_is_shown_in_both_forms_and_of_workflows() -> None:
    frames = [decode_frame(param.values[0]) for param in lines("json frames")]
    statuses = {"accepted", "queued", "progress", "streaming", "completed", "error", "cancelled"}
    assert {frame.status for frame in frames if frame.version is None} == statuses
    assert {frame.status for frame in frames if frame.command is not None} == statuses
    assert {frame.status for frame in frames if frame.workflow_id is not None} == statuses


@pytest.mark.parametrize("line", lines("json envelopes"))
def test_an_envelope_is_byte_for_byte_what_the_server_writes(line: str) -> None:
    frame = decode_frame(line)
    assert error_envelope(_error_of(frame), frame.timestamp, task_id=frame.task_id).decode() == line


@pytest.mark.parametrize("fence", samples("json stream"))
def test_a_stream_is_a_whole_call(fence: Fence) -> None:
    _check_whole([line for line in NdjsonDecoder().feed(fence.body.encode()) if b'"keepalive"' not in line])


@pytest.mark.parametrize("fence", [pytest.param(f, id=f.place) for f in FENCES if f.info == "sse"])
def test_a_stream_of_events_is_a_whole_call(fence: Fence) -> None:
    events = SseDecoder().feed(fence.body.encode())
    assert [event.id for event in events] == [str(decode_frame(event.data).seq) for event in events]
    assert all(_written_again(decode_frame(event.data)) == event.data for event in events)
    _check_whole([event.data for event in events])


def _check_whole(stream: list[bytes]) -> None:
    call = Call()
    for line in stream:
        call.observe(decode_frame(line))
    assert call.state.terminal


def test_the_states_are_those_of_the_machine() -> None:
    rows = table(PAGE, "state", "item")
    shown = {
        row["state"]: [row[step] for step in ("item", "note", "complete", "fail", "cancel")] for row in rows
    }
    due = {
        State(state).label: ["–" if after is None else after.label for after in following]
        for state, following in enumerate(_NEXT)
    }
    assert shown == due


# -- requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", samples("json body"))
def test_a_body_is_understood(fence: Fence) -> None:
    path, body = fence.info.split()[2], fence.body.encode()
    fields = read_workflow_body(body) if path == "/v2/workflow" else read_body(body)
    assert not isinstance(fields, WorkflowBody) or fields.named()
    assert path != "/v2/execute" or fields.named()
    fields.start(WireForm.V2)
    assert json.loads(body).keys() <= set(type(fields).__struct_fields__), "a key nobody reads"


def test_every_field_of_a_body_has_its_row() -> None:
    rows = [codes(row["field"])[0] for row in table(PAGE, "field", "type")]
    fields = {*CallBody.__struct_fields__, *CommandBody.__struct_fields__, *WorkflowBody.__struct_fields__}
    assert sorted(rows) == sorted(fields)


@pytest.mark.parametrize("line", lines("json to-server"))
def test_a_message_is_understood(line: str) -> None:
    message = read_message(line)
    if isinstance(message, CallBody):
        message.start(WireForm.V2)
    assert json.loads(line).keys() - {"type"} <= set(message.__struct_fields__), "a key nobody reads"


def test_every_message_that_is_read_has_its_row_and_its_sample() -> None:
    rows = {codes(row["in"])[0]: codes(row["fields"]) for row in table(PAGE, "in", "fields")}
    assert rows.keys() == MESSAGES.keys()
    assert {json.loads(param.values[0])["type"] for param in lines("json to-server")} == MESSAGES.keys()
    body = {*CommandBody.__struct_fields__, *WorkflowBody.__struct_fields__}
    for kind, shown in rows.items():
        fields = set(MESSAGES[kind].__struct_fields__)
        due = fields - body if issubclass(MESSAGES[kind], CallBody) else fields
        assert {name for name in shown if name.isidentifier()} == due, kind


# -- tables ----------------------------------------------------------------------------------------------


def test_the_codes_are_those_of_the_table_of_errors() -> None:
    rows = [tuple(row.values()) for row in table(PAGE, "code", "HTTP", "gRPC")]
    due = {
        (f"`{code.value}`", str(f.http), f.grpc, str(f.ws_close or "–"), "yes" if f.retryable else "no")
        for code, f in FAULTS.items()
    }
    assert len(rows) == len(set(rows))
    assert set(rows) == due
    assert [int(row[1]) for row in rows] == sorted(int(row[1]) for row in rows)


def test_the_reasons_are_those_of_a_cancel() -> None:
    rows = {codes(row["reason"])[0] for row in table(PAGE, "reason")}
    assert rows == {reason.value for reason in CancelReason} - {CancelReason.RUNNER_LOST.value}


SETTINGS = {name: field.default for name, field in ServerSettings.model_fields.items()} | {
    "max_connections": MOST_CONNECTIONS
}
NO_LIMITS = {"host", "port", "ws_port", "workers", "metrics"} | {
    "auth_keys",
    "allow_host",
    "allow_origin",
    "insecure_open",
    "kv_events",
    "kv_replays",
    "mcp",
    "playground",
    "traces",
    "tls_cert",
    "tls_key",
}
FIXED = {
    "`correlation_id` that is kept": MAX_CORRELATION,
    "`task_id`": MAX_TASK_ID,
    "`timeout`, `grace_s`": MAX_TIMEOUT_S,
    "calls of one async command that run at once": DEFAULT_ASYNC_CONCURRENCY,
    "calls of one sync command that run at once": DEFAULT_SYNC_CONCURRENCY,
    "calls of one command that wait": DEFAULT_QUEUE,
    "calls read on one WebSocket": MAX_CALLS,
    "items of an input stream that wait": MAX_WAITING,
    "levels of an item or answer": MAX_DEPTH,
}


def test_the_limits_are_those_in_force() -> None:
    due = dict(FIXED)
    for row in table(PAGE, "limit", "value"):
        variable = next(iter(codes(row["set by"])), "").removeprefix("PENSTOCK_").lower()
        value = SETTINGS[variable] if variable else due.pop(row["limit"])
        assert float(row["value"].split()[0].replace(",", "")) == value, row
    assert due == {}, "limits without a row"


def test_no_limit_is_left_out() -> None:
    named = [name for row in table(PAGE, "limit", "value") for name in codes(row["set by"])]
    assert sorted(named) == sorted(f"PENSTOCK_{name.upper()}" for name in SETTINGS.keys() - NO_LIMITS)
