"""Pools that are small enough to count."""

from __future__ import annotations

from penstock.protocol.kv import KVAllocateParams, KVDType, KVHandle, KVLayout, KVMigrateParams

BLOCK = 4


def params(num_tokens: int, request_id: str = "r", **other: object) -> KVAllocateParams:
    """Return what a request asks for."""
    asked = {"kv_dtype": KVDType.FP16, "layout": KVLayout.BSHD, "block_size": BLOCK, **other}
    return KVAllocateParams.model_validate({"request_id": request_id, "num_tokens": num_tokens, **asked})


def move(handle: KVHandle, device: str) -> KVMigrateParams:
    """Return what asks for a handle to be moved."""
    return KVMigrateParams(kv_handle=handle, target_device=device)
