"""Engines by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock import engines
from penstock.engines.scripted import ScriptedEngine
from penstock.errors import CallError, ErrorCode


def test_an_adapter_is_found_by_its_prefix() -> None:
    assert isinstance(engines.open("scripted:tokens=3"), ScriptedEngine)


def test_options_reach_the_adapter() -> None:
    assert engines.open("scripted:", pieces=["a"], engine_id="mine").engine_id == "mine"


def test_an_unknown_adapter_names_the_known_ones() -> None:
    with pytest.raises(CallError, match=r"'sglnag'.*llamacpp .*scripted ") as raised:
        engines.open("sglnag:http://127.0.0.1")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("spec", ["no-such-model", "llamacpp:no-such-model", "C:\\models\\no.gguf"])
def test_a_spec_without_an_adapter_is_a_model_for_llamacpp(spec: str) -> None:
    with pytest.raises(CallError, match=r"no model .*smollm2-135m") as raised:
        engines.open(spec)
    assert raised.value.code is ErrorCode.NOT_FOUND


def test_a_model_that_is_not_pulled_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    with pytest.raises(CallError, match="run: penstock pull smollm2-135m") as raised:
        engines.open("smollm2-135m")
    assert raised.value.code is ErrorCode.FAILED_PRECONDITION


@pytest.mark.parametrize("options", [{"slots": 0}, {"slots": "many"}, {"slot": 2}, {"context_tokens": 1}])
def test_a_wrong_option_is_named(options: dict[str, object]) -> None:
    with pytest.raises(CallError, match=r"slot|context_tokens") as raised:
        engines.open("smollm2-135m", **options)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_capacity_is_told_without_loading_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "my.gguf"
    model.write_bytes(b"no model at all")
    assert engines.capacity(f"llamacpp:{model}") == 4
    assert engines.capacity("scripted:capacity=7") == 7
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    with pytest.raises(CallError, match="run: penstock pull smollm2-135m"):
        engines.capacity("smollm2-135m")


def test_importing_the_room_loads_no_model_library() -> None:
    code = "import sys, penstock.engines; print({'xllamacpp', 'httpx', 'asyncio'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "set()"
