"""What was ever released on the wire can still be read.

`tests/protocol/golden` has the frames, `golden_requests.json` beside it what clients send.
Nothing is taken out of them: who changes the protocol adds to them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from behaviour.promises import promise
from penstock.protocol.call import Call
from penstock.protocol.messages import Frame, OnDisconnect, Start, WireForm, decode_frame
from penstock.protocol.requests import (
    CallBody,
    Message,
    read_body,
    read_default_body,
    read_message,
    read_workflow_body,
)

FOLDER = Path(__file__).parents[1] / "protocol"
REQUESTS = json.loads((FOLDER / "golden_requests.json").read_text(encoding="utf-8"))
FRAMES = sorted((FOLDER / "golden").glob("*/*.json"))
READERS = {"/predict": read_default_body, "/v2/execute": read_body, "/v2/workflow": read_workflow_body}


def same(given: dict[str, Any], start: Start) -> None:
    """Check that a request says what its JSON says."""
    assert json.loads(start.input) == (given.get("input") or {})
    assert start.task_id == given.get("task_id")
    assert start.is_stream is bool(given.get("is_stream"))
    assert start.notes is bool(given.get("notes"))
    assert start.output_config == given.get("output_config", {})
    assert start.timeout_s == given.get("timeout")
    policy = given.get("on_disconnect")
    assert start.on_disconnect == (None if policy is None else OnDisconnect.parse(policy))


@promise("P29")
@pytest.mark.parametrize("case", REQUESTS["bodies"], ids=lambda case: case["path"])
def test_a_body_is_read(case: dict[str, Any]) -> None:
    fields = READERS[case["path"]](json.dumps(case["body"]).encode())
    same(case["body"], fields.start(WireForm.V2))
    for name in ("command", "workflow_id"):
        assert getattr(fields, name, None) == case["body"].get(name)


@promise("P29")
@pytest.mark.parametrize("given", REQUESTS["messages"], ids=lambda given: given["type"])
def test_a_message_is_read(given: dict[str, Any]) -> None:
    message = read_message(json.dumps(given))
    assert message.__struct_config__.tag == given["type"]
    if isinstance(message, CallBody):
        same(given, message.start(WireForm.V2))
        given = {name: given[name] for name in ("command", "workflow_id", "correlation_id") if name in given}
    for name in given.keys() - {"type"}:
        value = getattr(message, name)
        assert (json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else value) == given[name]


@promise("P29")
def test_there_is_one_of_each_kind() -> None:
    kinds = {kind.__struct_config__.tag for kind in get_args(Message)}
    assert {given["type"] for given in REQUESTS["messages"]} == kinds
    assert {case["path"] for case in REQUESTS["bodies"]} == READERS.keys()


@promise("P29")
@pytest.mark.parametrize("path", FRAMES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_frame_is_read_and_moves_a_call(path: Path) -> None:
    frame = decode_frame(path.read_bytes())
    call = Call()
    if frame.status != "accepted":
        call.observe(Frame(type="task", status="accepted", seq=0, task_id="t", request_id="r"))
        call.resume((frame.seq or 0) - 1)
    call.observe(frame)
    assert call.state.label == (frame.status if frame.status not in ("queued", "progress") else "accepted")
