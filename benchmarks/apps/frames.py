"""The frames of one stream and one answer, as penstock writes them: what the other apps send too, so that
every contender moves the same bytes."""

from __future__ import annotations

import time
from typing import Any

TOKENS = 256
REQUEST_ID = "0123456789abcdef0123456789abcdef"
METRICS = {"queue_ms": 0.012, "total_ms": 12.345, "items": TOKENS, "ttft_ms": 0.123}


def frame(status: str, seq: int, command: str, task_id: str, **fields: Any) -> dict[str, Any]:
    """Return one frame, its keys in wire order."""
    head = {"type": "task", "status": status}
    if "data" in fields:
        head["data"] = fields.pop("data")
    identity = {"version": "v2", "command": command, "task_id": task_id, "seq": seq}
    return {**head, "timestamp": round(time.time(), 3), **identity, **fields}


def accepted(command: str, task_id: str = REQUEST_ID) -> dict[str, Any]:
    """Return the first frame of a stream."""
    return frame("accepted", 0, command, task_id, request_id=REQUEST_ID)


def token(seq: int, command: str, task_id: str = REQUEST_ID) -> dict[str, Any]:
    """Return the frame of one token; spelled out, as this runs once per token."""
    return {
        "type": "task",
        "status": "streaming",
        "data": {"text": "token ", "chunk": "token ", "finished": False},
        "timestamp": round(time.time(), 3),
        "version": "v2",
        "command": command,
        "task_id": task_id,
        "seq": seq,
    }


def cumulative(seq: int, command: str) -> dict[str, Any]:
    """Return the frame of one token that has all the text so far."""
    data = {"text": "token " * seq, "chunk": "token ", "finished": False}
    return {**token(seq, command), "data": data}


def completed(command: str, tokens: int = TOKENS, task_id: str = REQUEST_ID) -> dict[str, Any]:
    """Return the last frame of a stream."""
    return frame("completed", tokens + 1, command, task_id, metrics={**METRICS, "items": tokens})


def answer(total: int) -> dict[str, Any]:
    """Return the one frame that answers `add`."""
    metrics = {"queue_ms": 0.012, "total_ms": 0.123, "items": 0}
    return frame("completed", 1, "add", REQUEST_ID, data=total, metrics=metrics)
