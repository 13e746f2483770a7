"""The KV cache types of the typed protocol v0.1.

They name a piece of cache and what is asked of it.  Token ids and block hashes have no place in a v0.1
handle; whoever needs them keeps them beside it.
"""

from __future__ import annotations

from enum import Enum

from pydantic import PositiveInt

from penstock.protocol.inference import WireModel

__all__ = ["KVAllocateParams", "KVDType", "KVEvictReason", "KVHandle", "KVLayout", "KVMigrateParams"]


class KVDType(str, Enum):
    """Number format of the cached keys and values."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"


class KVLayout(str, Enum):
    """Order of the dimensions: batch, sequence, head, depth."""

    BSHD = "bshd"
    BHSD = "bhsd"


class KVEvictReason(str, Enum):
    """Why a piece of the cache was given up."""

    MEMORY_PRESSURE = "memory_pressure"
    TTL_EXPIRED = "ttl_expired"
    EXPLICIT_FREE = "explicit_free"


class KVAllocateParams(WireModel):
    """Cache asked for: ``num_tokens`` in tokens, ``block_size`` in tokens per block (need not divide it)."""

    request_id: str
    num_tokens: PositiveInt
    kv_dtype: KVDType
    layout: KVLayout
    block_size: PositiveInt


class KVHandle(WireModel):
    """Cache that was given; ``num_tokens`` has no limit, ``device`` is free text such as ``cuda:0``."""

    handle_id: str
    request_id: str
    num_tokens: int
    device: str


class KVMigrateParams(WireModel):
    """A piece of cache to be moved to another device."""

    kv_handle: KVHandle
    target_device: str
