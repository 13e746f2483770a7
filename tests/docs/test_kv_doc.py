"""docs/kv.md shows what `GET /v2/kv` answers, and its hook forbids what it says."""

from __future__ import annotations

import json

import msgspec
import pytest

from docs.pages import DOCS, fences
from penstock.errors import CallError
from penstock.protocol.kv import KVAllocateParams, KVDType, KVLayout
from penstock.server.kv import KvCaches

PAGE = DOCS / "kv.md"


def test_the_answer_has_the_fields_that_are_shown_and_no_others() -> None:
    [shown] = [fence.body for fence in fences(PAGE) if fence.info == "json"]
    read = msgspec.json.decode(shown, type=KvCaches)
    assert json.loads(msgspec.json.encode(read)) == json.loads(shown)
    [engine] = read.engines
    assert engine.prefix_hit_rate == engine.reused_tokens / engine.queried_tokens
    assert engine.engine_hit_rate == engine.engine_cached_tokens / engine.engine_prompt_tokens
    [device] = engine.devices
    assert device.held + device.reusable + device.blank == device.num_blocks


def test_the_hook_forbids_what_it_says() -> None:
    [shown] = [fence.body for fence in fences(PAGE) if "not_all_at_once" in fence.body]
    names: dict[str, object] = {}
    exec(compile(shown, str(PAGE), "exec"), names)
    engine = names["initialize"]()["engine"]  # type: ignore[operator]
    try:
        with engine.kv.locked() as pool, pytest.raises(CallError, match="more than 2,000 tokens at once"):
            pool.allocate(
                KVAllocateParams(
                    request_id="r",
                    num_tokens=2001,
                    kv_dtype=KVDType.FP16,
                    layout=KVLayout.BSHD,
                    block_size=16,
                )
            )
    finally:
        engine.close()
