"""The KV cache as a managed resource: blocks, prefixes, hooks, events.

Each name is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS: dict[str, str] = {
    "AllBlocksCleared": "events",
    "BlockPool": "pool",
    "BlockRemoved": "events",
    "BlockStored": "events",
    "EventBatch": "wire",
    "EventLog": "events",
    "EventPublisher": "publishing",
    "HeldPrefixes": "held",
    "HotPrefix": "hot",
    "KVHookEvent": "hooks",
    "KVHookPoint": "hooks",
    "KVVeto": "hooks",
    "NumberedEvent": "events",
    "Policy": "policies",
    "PoolHandle": "handles",
    "PoolStats": "stats",
    "PrefixIndex": "prefixes",
    "Prompt": "prompts",
    "TierStats": "stats",
    "Ttl": "policies",
    "chain_hashes": "chain",
    "chain_root": "chain",
    "follow": "feed",
    "ndjson_lines": "feed",
    "pack_tokens": "chain",
    "read_frames": "wire",
    "read_ndjson_line": "feed",
    "read_prompt": "prompts",
    "subscribe": "subscribing",
    "write_frames": "wire",
}

__all__ = [
    "AllBlocksCleared",
    "BlockPool",
    "BlockRemoved",
    "BlockStored",
    "EventBatch",
    "EventLog",
    "EventPublisher",
    "HeldPrefixes",
    "HotPrefix",
    "KVHookEvent",
    "KVHookPoint",
    "KVVeto",
    "NumberedEvent",
    "Policy",
    "PoolHandle",
    "PoolStats",
    "PrefixIndex",
    "Prompt",
    "TierStats",
    "Ttl",
    "chain_hashes",
    "chain_root",
    "follow",
    "ndjson_lines",
    "pack_tokens",
    "read_frames",
    "read_ndjson_line",
    "read_prompt",
    "subscribe",
    "write_frames",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "zmq":
            raise
        raise ImportError(
            f"{name} needs the package pyzmq; install it with: pip install 'penstock[kv-events]'"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
