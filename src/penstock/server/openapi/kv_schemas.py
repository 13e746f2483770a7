"""JSON Schemas of what is told about KV caches."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.server.kv import KvCaches
from penstock.server.openapi.schemas import COUNT, POINTER, TIME, Schema, or_null, record

_HASH: Schema = {"type": "string", "pattern": "^[0-9a-f]{30}$"}
_EVENT: Schema = record(
    {
        "seq": COUNT,
        "timestamp": TIME,
        "type": {"enum": ["BlockStored", "BlockRemoved", "AllBlocksCleared"]},
        "block_hashes": {"type": "array", "items": _HASH},
        "parent_block_hash": or_null(_HASH),
        "token_ids": {"type": "array", "items": COUNT},
        "block_size": COUNT,
        "medium": or_null({"type": "string"}),
        "lora_name": or_null({"type": "string"}),
    },
    "seq",
    "timestamp",
    "type",
)


def kv_schemas() -> Mapping[str, Schema]:
    """Return the components, by name."""
    _, of_structs = msgspec.json.schema_components([KvCaches], ref_template=POINTER + "{name}")
    return {"KvEvent": _EVENT, **of_structs}
