"""JSON Schemas of what stands on the wire whatever a project serves: bodies, frames, answers, errors.

A frame's schema is open, as readers pass over keys they do not know (docs/protocol.md 2.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from penstock.errors import FAULTS, ErrorCode
from penstock.protocol.dispatch import (
    CancelOutcome,
    CommandDescription,
    Phase,
    TaskRecord,
    WorkflowDescription,
)
from penstock.protocol.messages import MAX_ROUTE_LABELS, MAX_TIMEOUT_S, TASK_ID, CancelReason, CancelTimes

Schema = Mapping[str, Any]

POINTER = "#/components/schemas/"

TIME: Schema = {"type": "number", "description": "Unix seconds."}
COUNT: Schema = {"type": "integer", "minimum": 0}
TASK_NAME: Schema = {"type": "string", "pattern": f"^{TASK_ID.pattern.removesuffix(chr(92) + 'Z')}$"}
SECONDS: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S}
OPEN: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": POINTER + name}


def record(properties: Mapping[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    """Return the schema of an object; without ``required``, all of its properties are."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required or properties),
        **more,
    }


def narrowed(schema: Schema, /, *, required: Iterable[str], **properties: Any) -> Schema:
    """Return the schema of an object of which more is known here.

    It stands by itself: generators of code make one class of it, and little of several that hold together.
    """
    due = [*schema.get("required", ()), *required]
    return {
        **schema,
        "properties": {**schema["properties"], **properties},
        "required": list(dict.fromkeys(due)),
    }


def either(schemas: Iterable[Schema]) -> Schema:
    """Return the schema of what is one of these."""
    options = list(schemas)
    return options[0] if len(options) == 1 else {"anyOf": options}


def or_null(schema: Schema) -> Schema:
    """Return the schema of what may be left out, or be null, which is the same (docs/protocol.md 4.1)."""
    return {"anyOf": [schema, {"type": "null"}]}


_ROUTE_TEXT: Schema = {"type": "string", "maxLength": 256}
_LABELS: Schema = {
    "type": "object",
    "maxProperties": MAX_ROUTE_LABELS,
    "propertyNames": _ROUTE_TEXT,
    "additionalProperties": _ROUTE_TEXT,
}
BODY: Schema = {
    "type": "object",
    "description": "What every request to run something may say; keys it does not name are ignored.",
    "properties": {
        "input": or_null(OPEN),
        "output_config": {**or_null(OPEN), "description": "Handed to the author's code as it is."},
        "is_stream": {
            "type": ["boolean", "null"],
            "description": "Whether to stream; where it is not said, Accept decides.",
        },
        "task_id": {**or_null(TASK_NAME), "description": "The caller's name for the call."},
        "notes": {
            "type": ["boolean", "null"],
            "description": "Whether the log has frames of status queued and progress.",
        },
        "on_disconnect": {
            "description": "What happens when the last reader leaves.",
            "anyOf": [
                {"enum": ["cancel", "continue", None]},
                record(
                    {"grace_s": {"type": "number", "minimum": 0, "maximum": MAX_TIMEOUT_S}},
                    additionalProperties=False,
                ),
            ],
        },
        "timeout": {**or_null(SECONDS), "description": "The call's whole time in seconds."},
        "route": {
            **or_null({"type": "object", "properties": {"labels": _LABELS, "sticky": or_null(_ROUTE_TEXT)}}),
            "description": "Which runner of a gateway it is for; elsewhere it means nothing.",
        },
    },
}

_IDENTITY: Schema = {
    "timestamp": TIME,
    "version": {"const": "v2", "description": "Absent from V1 frames."},
    "command": {"type": "string", "description": "Absent from V1 frames and from those of workflows."},
    "workflow_id": {"type": "string"},
    "task_id": {"type": "string"},
    "seq": COUNT,
}
_STEP: Schema = {"step": {"type": "string"}}
_METRICS: Schema = {"metrics": OPEN}
_FAULT: Schema = {
    "error": {"type": "string", "description": "For people."},
    "code": {"enum": [code.value for code in ErrorCode]},
    "retryable": {"type": "boolean"},
    "details": {"type": "array", "items": OPEN},
    "retry_after_s": {"type": "number"},
    "first_seq": {**COUNT, "description": "With the code gone: the oldest frame that is kept."},
}
_CANCELLED: Schema = {
    "reason": {"enum": [reason.value for reason in CancelReason]},
    "cancel": ref("CancelTimes"),
}


def _frame(status: str, properties: Schema, *required: str) -> Schema:
    head = {"type": {"const": "task"}, "status": {"const": status}}
    always = ("type", "status", "timestamp", "task_id", "seq")
    return record({**head, **_IDENTITY, **properties}, *always, *required)


FRAMES: Mapping[str, Schema] = {
    "Accepted": _frame("accepted", {"request_id": {"type": "string"}}, "request_id"),
    "Queued": _frame("queued", {**_STEP, "position": {"type": "integer", "minimum": 1}}, "position"),
    "Progress": _frame("progress", {**_STEP, "data": OPEN}, "data"),
    "Streaming": _frame("streaming", {**_STEP, "data": {}}, "data"),
    "Completed": _frame("completed", {"data": {}, **_METRICS}),
    "Error": _frame("error", _FAULT, "error", "code", "retryable"),
    "Cancelled": _frame("cancelled", {**_CANCELLED, **_METRICS}, "reason", "cancel"),
}
"""The frames of a call, by the name of their schema (docs/protocol.md section 2)."""


ENDED: Schema = {**FRAMES["Completed"], "not": {"required": ["data"]}}
"""The end of a stream of items."""


def frame_of(items: Iterable[Schema], ends: Iterable[Schema]) -> Schema:
    """Return the schema of what a stream holds.

    Args:
        items: Schemas of its `streaming` frames.
        ends: Schemas of its `completed` frames.
    """
    others = ("Accepted", "Queued", "Progress", "Error", "Cancelled", "Envelope")
    return either([*map(ref, others), *items, *ends])


KEEPALIVE: Schema = record({"type": {"const": "keepalive"}, "timestamp": TIME})


def envelope(codes: Iterable[ErrorCode]) -> Schema:
    """Return the schema of an error that belongs to no call in flight (docs/protocol.md 2.14)."""
    fault = {**_FAULT, "code": {"enum": [code.value for code in codes]}}
    head = {"type": {"const": "task"}, "status": {"const": "error"}, "timestamp": TIME}
    more = {"task_id": {"type": "string"}, **fault}
    return record({**head, **more}, *head, "error", "code", "retryable")


def _answers() -> Mapping[str, Schema]:
    probe = {"phase": {"type": "string"}, "elapsed_s": {"type": "number"}, "checks": OPEN}
    status = {"status": {"enum": list(get_args(Phase))}}
    health = {
        **status,
        "name": {"type": "string"},
        "version": {"type": "string"},
        "uptime_s": {"type": "number"},
        "in_flight": COUNT,
        "timestamp": TIME,
    }
    commands = {"type": "object", "additionalProperties": ref("CommandDescription")}
    workflows = {"type": "object", "additionalProperties": ref("WorkflowDescription")}
    return {
        "Health": record(health, "status"),  # that is all where a key is needed and none was sent
        "Probe": record({**status, **probe}, "status"),
        "Commands": record(
            {"commands": commands, "workflows": workflows, "version": {"const": "v2"}, "timestamp": TIME}
        ),
        "Tasks": record({"tasks": {"type": "array", "items": ref("TaskRecord")}, "timestamp": TIME}),
        "Cancel": record(
            {
                "task_id": {"type": "string"},
                "outcome": {"enum": list(get_args(CancelOutcome))},
                "status": {"type": "string"},
            }
        ),
        "AsyncApi": record(
            {"asyncapi": {"type": "string"}, "info": OPEN, "channels": OPEN, "operations": OPEN}
        ),
        "OpenApi": record({"openapi": {"type": "string"}, "info": OPEN, "paths": OPEN, "components": OPEN}),
    }


_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1000}
RUNNER_SCHEMAS: Mapping[str, Schema] = {
    "Runner": record(
        {
            "name": {"type": "string"},
            "state": {"enum": ["connecting", "connected", "draining", "leaving", "away", "gone"]},
            "status": {"type": "string", "description": "For people."},
            "software": {"type": "string"},
            "connected_at": TIME,
            "calls": COUNT,
            "capacity": COUNT,
            "weight": _SHARE,
            "labels": _TEXTS,
            "commands": {
                "type": "object",
                "additionalProperties": COUNT,
                "description": "How many calls of each run at once.",
            },
        }
    ),
    "Runners": record({"runners": {"type": "array", "items": ref("Runner")}}),
    "RunnerWeight": record({"weight": _SHARE}),
}
"""What a gateway has besides."""


def static_schemas() -> dict[str, Schema]:
    """Return the components that no project changes, by name."""
    structs = (TaskRecord, CommandDescription, WorkflowDescription, CancelTimes)
    _, of_structs = msgspec.json.schema_components(structs, ref_template=POINTER + "{name}")
    return {
        "Body": BODY,
        **FRAMES,
        "Ended": ENDED,
        "Frame": frame_of([ref("Streaming")], [ref("Completed")]),
        "Keepalive": KEEPALIVE,
        "Envelope": envelope(FAULTS),
        **_answers(),
        **of_structs,
    }
