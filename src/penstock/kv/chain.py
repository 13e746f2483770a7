"""What a block of the cache is known by: a hash of its parent's hash and its own tokens.

The first parent is the hash of what must not be shared across: the salt of a tenant, the adapter, the number
format, the layout and the block size.  So a hash stands for everything from the first token on, for one
tenant, and whoever has a block's hash and the tokens behind it can compute the next.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from penstock.errors import CallError, ErrorCode
from penstock.protocol.kv import KVDType, KVLayout

HASH_BYTES = 15  # two prefixes meet by chance after 2**60 blocks; one more would take 16 more of memory
TOKEN_BYTES = 4
_STRETCH = 32  # blocks
_SWAP = sys.byteorder == "big"  # hashes are the same on every machine


def pack_tokens(token_ids: Sequence[int]) -> bytes:
    """Return token ids as 4 bytes each, little-endian.

    Raises:
        CallError: ``invalid_argument``: one is no integer from 0 to 2**32 - 1.
    """
    try:
        packed = array("I", _numbers(token_ids))
    except (TypeError, OverflowError, ValueError) as error:
        raise CallError(
            f"the token ids cannot be read: {error}; each must be an integer from 0 to 4294967295",
            ErrorCode.INVALID_ARGUMENT,
        ) from None
    if _SWAP:
        packed.byteswap()
    return packed.tobytes()


def _numbers(token_ids: Sequence[int]) -> Sequence[int]:
    if isinstance(token_ids, (bytes, bytearray)):  # an array would take them for its own memory
        raise TypeError("they are bytes")
    return token_ids


def unpack_tokens(packed: bytes) -> list[int]:
    """Return the token ids that ``pack_tokens`` packed."""
    tokens = array("I", packed)
    if _SWAP:
        tokens.byteswap()
    return tokens.tolist()


@lru_cache(maxsize=1024)
def chain_root(salt: str, adapter: str, dtype: KVDType, layout: KVLayout, block_size: int) -> bytes:
    """Return what the first block of a chain has for a parent; ``block_size`` is in tokens."""
    parts = json.dumps([salt, adapter, dtype.value, layout.value, block_size])
    return blake2b(parts.encode(), digest_size=HASH_BYTES).digest()


def chain_hashes(parent: bytes, packed: bytes, block_size: int) -> list[bytes]:
    """Return the hash of each full block of packed tokens that follow ``parent``."""
    step = block_size * TOKEN_BYTES * _STRETCH
    end = len(packed) - len(packed) % (block_size * TOKEN_BYTES)
    hashes: list[bytes] = []
    for start in range(0, end, step):
        hashes += _stretch(
            hashes[-1] if hashes else parent, packed[start : min(start + step, end)], block_size
        )
    return hashes


@lru_cache(maxsize=512)
def _stretch(parent: bytes, packed: bytes, block_size: int) -> Sequence[bytes]:
    """Hash a few full blocks.  What many requests begin with is kept, as looking it up is quicker."""
    step = block_size * TOKEN_BYTES
    hashes = []
    for start in range(0, len(packed), step):
        parent = blake2b(parent + packed[start : start + step], digest_size=HASH_BYTES).digest()
        hashes.append(parent)
    return hashes
