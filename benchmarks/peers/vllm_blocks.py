"""vLLM's `KVCacheManager` and `BlockPool`, straight from its wheel and without torch.

Their path is plain Python; what the modules around it import, and it never calls, is replaced by names that
do nothing.  Get the wheel with: pip download --no-deps vllm==0.33.0
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

PINNED = "0.33.0"
PACKAGES = ("vllm", "vllm.v1", "vllm.v1.core", "vllm.utils", "vllm.distributed", "vllm.v1.metrics")
REAL = {
    "vllm.distributed.kv_events",
    "vllm.utils.hashing",
    "vllm.utils.math_utils",
    "vllm.v1.core.block_pool",
    "vllm.v1.core.kv_cache_coordinator",
    "vllm.v1.core.kv_cache_manager",
    "vllm.v1.core.kv_cache_metrics",
    "vllm.v1.core.kv_cache_utils",
    "vllm.v1.core.single_type_kv_cache_manager",
    "vllm.v1.kv_cache_interface",
    "vllm.v1.kv_cache_spec_registry",
    "vllm.v1.metrics.stats",
}


class Status:
    """What of a request's states is looked at."""

    WAITING, PREEMPTED = 1, 2


class _Hollow(type):
    """A class whose attributes do nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = MagicMock(name=name)
        setattr(cls, name, made)
        return made


class _HollowModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        body = {"__class_getitem__": classmethod(lambda cls, _: cls), "__init__": lambda *_, **__: None}
        made = _Hollow(name, (), body) if name[:1].isupper() else MagicMock(name=name)
        setattr(self, name, made)
        return made


class _Finder(MetaPathFinder, Loader):
    """Finds a hollow module for all of vLLM but its block pool, and for what is not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        top = name.partition(".")[0]
        if name in REAL or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        if top != "vllm" and any(
            finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self
        ):
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _HollowModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def load(wheel: Path) -> None:
    """Make vLLM's modules importable from its wheel."""
    if f"-{PINNED}-" not in wheel.name:
        raise SystemExit(f"{wheel.name} is not vLLM {PINNED}, which this was written for")
    for name in PACKAGES:
        package = _HollowModule(name)
        package.__path__ = [str(wheel.joinpath(*name.split(".")))]
        sys.modules[name] = package
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, package)
    sys.meta_path.insert(0, _Finder())


def vllm_round(wheel: Path, num_blocks: int, block: int) -> Callable[[list[int]], int]:
    """Return what allocates and frees one request, hashes and all, and tells how many tokens were reused.

    Hashes are SHA-256, the default; events are off, which is the default too.
    """
    load(wheel)
    hashing = import_module("vllm.utils.hashing").sha256
    blocks = import_module("vllm.v1.core.kv_cache_utils")
    blocks.init_none_hash(hashing)
    hasher = blocks.get_request_block_hasher(block, hashing)
    manager = _manager(num_blocks, block)
    numbers = count()

    def run(tokens: list[int]) -> int:
        request = _request(str(next(numbers)), tokens)
        request.block_hashes = hasher(request)
        found, reused, _ = manager.get_computed_blocks(request)
        if manager.allocate_slots(request, len(tokens) - reused, reused, found) is None:
            raise SystemExit("vLLM's pool is full")
        manager.free(request)
        return int(reused)

    return run


def _manager(num_blocks: int, block: int) -> Any:
    interface = import_module("vllm.v1.kv_cache_interface")
    spec = interface.FullAttentionSpec(
        block_size=block, num_kv_heads=1, head_size=1, dtype=MagicMock(itemsize=2)
    )
    config = interface.KVCacheConfig(
        num_blocks=num_blocks + 1,  # one is kept for padding
        kv_cache_tensors=[],
        kv_cache_groups=[interface.KVCacheGroupSpec(["layer"], spec)],
    )
    module = import_module("vllm.v1.core.kv_cache_manager")
    module.RequestStatus = Status  # nothing that stands for something may be called on the path that is timed
    return module.KVCacheManager(
        config, max_model_len=8192, scheduler_block_size=block, hash_block_size=block, enable_caching=True
    )


def _request(name: str, tokens: list[int]) -> SimpleNamespace:
    return SimpleNamespace(
        request_id=name,
        all_token_ids=tokens,
        num_tokens=len(tokens),
        num_prompt_tokens=len(tokens),
        num_computed_tokens=0,
        num_in_flight_tokens=0,
        num_output_placeholders=0,
        block_hashes=[],
        mm_features=[],
        lora_request=None,
        cache_salt=None,
        prompt_embeds=None,
        status=Status.WAITING,
        skip_reading_prefix_cache=False,
        shared_prefix_boundary=0,
        session_id=None,
    )
