"""The messages of a WebSocket, from the types that the protocol has for them (docs/protocol.md section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from penstock.protocol.dispatch import Description
from penstock.protocol.requests import (
    CancelMessage,
    DetachMessage,
    InputEndMessage,
    InputMessage,
    PingMessage,
    ResumeMessage,
)
from penstock.server.openapi.schemas import POINTER, TIME, Schema, record, ref

_TEXT: Schema = {"type": "string"}
_CORRELATION: Schema = {
    "correlation_id": {"type": ["string", "null"], "description": "Stands for the header X-Request-Id."}
}
_MORE: Schema = {
    "more_input": {
        "type": "boolean",
        "description": "Whether messages of type input follow: true unless said.",
    }
}
_TOLD: Schema = {"type": _TEXT, "status": _TEXT, "task_id": _TEXT}


class Asked(NamedTuple):
    """What a client sends.

    Attributes:
        name: Of the message, and of the operation.
        summary: What it does.
        payload: Its schema.
        replies: Names of the messages it is answered with.
    """

    name: str
    summary: str
    payload: Schema
    replies: tuple[str, ...]


def _told(kind: str, *statuses: str) -> Schema:
    return record({**_TOLD, "type": {"const": kind}, "status": {"enum": list(statuses)}})


TOLD: Mapping[str, tuple[str, Schema]] = {
    "pong": ("Answers a ping.", record({"type": {"const": "pong"}, "timestamp": TIME})),
    "cancel.told": (
        "Answers a cancel that no terminal frame answers here.",
        _told("cancel", "cancelled", "already_finished", "not_found"),
    ),
    "resume.told": ("There is nothing behind the terminal frame.", _told("resume", "already_finished")),
    "detach.told": ("No frame of this call follows.", _told("detach", "detached")),
}
"""What a server sends that is no frame of a call, with what it means."""

_ALWAYS = ("accepted", "queued", "progress", "error", "cancelled", "envelope")
FRAMES: Mapping[str, str] = {
    "accepted": "The first frame of a call.",
    "queued": "A call waits.",
    "progress": "What a call tells of its progress.",
    "streaming": "An item of a step of a workflow.",
    "completed": "A call did what it was asked.",
    "error": "A call failed.",
    "cancelled": "A call was cancelled.",
    "envelope": "What belongs to no call in flight: a message that was refused.",
}
"""The frames that any call may have, and what they mean."""

_IN_V1: Mapping[str, str] = {"default.streaming": "DefaultItem", "default.answer": "Defaulted"}
_REPLIES: Mapping[type, tuple[str, tuple[str, ...]]] = {
    CancelMessage: ("Cancel a call.", ("cancelled", "cancel.told")),
    ResumeMessage: ("Read a call again, behind a frame.", ("resume.told",)),
    DetachMessage: ("Read a call no longer on this socket.", ("detach.told",)),
    InputMessage: ("One item for a call whose command takes a stream.", ("envelope",)),
    InputEndMessage: ("No more items come for this call.", ("envelope",)),
    PingMessage: ("Ask for a sign of life.", ("pong",)),
}


def asked(description: Description) -> Iterator[Asked]:
    """Yield what a client of this project may send."""
    default = _streamed("default", (description.default_command,), description)
    yield _runs("task", "task", "Run the default command, V1.", "Default", default, _MORE)
    if not description.commands:
        yield _runs("command", "command", "Run a command, V2.", "Execute", _plain(), _MORE)
    for name, command in description.commands.items():
        part = f"command.{name}"
        replies = _streamed(part, (name,), description)
        yield _runs(part, "command", command.description or f"Run {name}.", f"{part}.body", replies, _MORE)
    if not description.workflows:
        yield _runs("workflow", "workflow", "Run a workflow, V2.", "Workflow", _plain())
    for name, workflow in description.workflows.items():
        part = f"workflow.{name}"
        yield _runs(part, "workflow", workflow.description or f"Run {name}.", f"{part}.body", _plain())
    components = control_schemas()
    everything = (*_ALWAYS, "streaming", "completed", *_items(description))
    for kind, (summary, replies) in _REPLIES.items():
        tag = kind.__struct_config__.tag  # type: ignore[attr-defined]
        again = everything if kind is ResumeMessage else ()
        assert kind.__name__ in components
        yield Asked(tag, summary, ref(kind.__name__), (*again, *replies))


def told(description: Description) -> Iterator[tuple[str, str, Schema]]:
    """Yield what a server of this project may send: name, meaning and schema."""
    for name, summary in FRAMES.items():
        yield name, summary, ref(name.capitalize())
    for name in _items(description):
        what = "An item" if name.endswith(".streaming") else "The answer"
        of = name.removeprefix("command.").rpartition(".")[0]
        yield name, f"{what} of {of}.", ref(_IN_V1.get(name, name))
    for name, (summary, payload) in TOLD.items():
        yield name, summary, payload


def control_schemas() -> Mapping[str, Schema]:
    """Return the components of the messages that open no call, by name."""
    _, components = msgspec.json.schema_components(tuple(_REPLIES), ref_template=POINTER + "{name}")
    return components


def _runs(
    name: str, kind: str, summary: str, body: str, replies: tuple[str, ...], more: Schema | None = None
) -> Asked:
    head = {"type": {"const": kind}, **_CORRELATION, **(more or {})}
    payload = {"allOf": [ref(body), {"properties": head, "required": ["type"]}]}
    return Asked(name, summary, payload, replies)


def _plain() -> tuple[str, ...]:
    return (*_ALWAYS, "streaming", "completed")


def _streamed(part: str, names: Iterable[str], description: Description) -> tuple[str, ...]:
    """Return what answers a call of a command: its own items, and its own answer."""
    command = next((description.commands[name] for name in names if name in description.commands), None)
    if command is None:
        return _plain()
    own = (f"{part}.streaming", "completed") if command.streaming else ()
    return (*_ALWAYS, *own, f"{part}.answer")


def _items(description: Description) -> Iterator[str]:
    parts = [(f"command.{name}", command) for name, command in description.commands.items()]
    if (default := description.commands.get(description.default_command)) is not None:
        parts.append(("default", default))
    for part, command in parts:
        if command.streaming:
            yield f"{part}.streaming"
        yield f"{part}.answer"


def draft_7(schema: Any) -> Any:
    """Return a JSON Schema of today as one of draft 7, which AsyncAPI's own form of schemas extends."""
    if isinstance(schema, list):
        return [draft_7(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: value if key in _VALUES else _named(value) if key in _NAMED else draft_7(value)
        for key, value in schema.items()
        if not (key == "discriminator" and isinstance(value, dict))  # a string there, of another meaning
    }
    if "prefixItems" in plain:
        rest = {"additionalItems": plain.pop("items")} if "items" in plain else {}
        plain |= {"items": plain.pop("prefixItems"), **rest}
    return plain


_VALUES = frozenset(("default", "const", "enum", "examples"))
_NAMED = frozenset(("properties", "patternProperties", "$defs", "dependentSchemas"))


def _named(schemas: Any) -> Any:
    return {name: draft_7(each) for name, each in schemas.items()} if isinstance(schemas, dict) else schemas
