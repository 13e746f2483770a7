"""JSON Schemas (2020-12) of the typed protocol.

They describe the form to send: v0.1 names, numbers as numbers.  Whatever they accept the models accept;
the models also read looser spellings (``"24"`` for a number, ``content`` for ``chunk``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from penstock.protocol import inference, kv, openai

__all__ = ["DIALECT", "TYPES", "schemas"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_INFERENCE = (
    "Request",
    "Response",
    "Metrics",
    "Timestamps",
    "Error",
    "ErrorCode",
    "FinishReason",
    "StreamEvent",
    "StreamEventStart",
    "StreamEventDelta",
    "StreamEventEnd",
    "StartEvent",
    "DeltaEvent",
    "EndEvent",
)

TYPES: Mapping[str, Any] = MappingProxyType(
    {name: getattr(inference, name) for name in _INFERENCE}
    | {name: getattr(kv, name) for name in kv.__all__}
    | {name: getattr(openai, name) for name in openai.__all__}
)
"""Every public type of the protocol by its name, in the order ``schemas`` lists them."""


def _require_tag(schema: dict[str, Any]) -> dict[str, Any]:
    # One event class alone may be read without its tag; in the union only the tag tells them apart.
    for definition in schema["$defs"].values():
        if "event" in definition.get("properties", ()):
            definition["required"] = ["event", *definition["required"]]
    return schema


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every public type, by name, always in the same order."""
    found = {name: {"$schema": DIALECT, **TypeAdapter(kind).json_schema()} for name, kind in TYPES.items()}
    _require_tag(found["StreamEvent"])
    return found
