"""Folders that are models and folders that are none; served with no code; and leaving in the midst of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from penstock import AsyncClient, engines
from penstock.compose import build_app
from penstock.engines.transformers import TransformersEngine
from penstock.errors import CallError, ErrorCode
from penstock.server.settings import ServerSettings
from transformers_engine.asking import (
    end_of,
    model_of,
    request,
    run,
)
from transformers_engine.making import save

pytestmark = pytest.mark.anyio


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("_no_network")
async def test_a_repository_in_the_local_cache_is_found_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "models--owner--repo" / "snapshots" / "abc")
    capfd.readouterr()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert engines.capacity("transformers:owner/repo") == 2
    async with engines.open("transformers:owner/repo", device="cpu", dtype="bfloat16", slots="3") as engine:
        assert isinstance(engine, TransformersEngine)
        assert (engine.engine_id, engine.capacity) == ("transformers:owner/repo", 3)
        assert model_of(engine).dtype is torch.bfloat16
        assert (await end_of(engine, request(max_tokens=3))).finish_reason == "length"
    assert capfd.readouterr() == ("", "")


async def test_opened_by_path_it_is_named_after_its_folder(folder: Path) -> None:
    async with engines.open(f"transformers:{folder}/", context_tokens=32) as engine:
        assert engine.engine_id == "transformers:tiny"
        with pytest.raises(CallError, match="holds 32"):
            await run(engine, request("a" * 40))  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(CallError, match="finds no device cuda:63") as raised:
        engines.open(f"transformers:{folder}", device="cuda:63")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _broken(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"hello" * 100)


def _without_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _another_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no-such-kind"}')


def _own_code(folder: Path) -> None:
    (folder / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}'
    )
    (folder / "own.py").write_text("raise SystemExit('code of the folder was run')\n")


def _without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    "harm",
    [_without_weights, _pickled, _broken, _without_a_tensor, _another_kind, _own_code, _without_tokenizer],
)
@pytest.mark.usefixtures("_no_network")
def test_a_folder_that_is_no_whole_model_is_refused(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    harm(save(tmp_path))
    with pytest.raises(CallError, match=str(tmp_path)) as raised:
        engines.open(f"transformers:{tmp_path}")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


async def test_it_is_served_with_no_code(folder: Path) -> None:
    app = build_app(None, f"transformers:{folder}", ServerSettings(drain_s=7))
    async with app, AsyncClient(app) as client:
        said = []
        async with client.stream(
            "predict", {"prompt": "the river", "max_tokens": 12, "temperature": 0}
        ) as stream:
            said = [item async for item in stream]
        assert said[-1]["finished"]
        assert said[-1]["text"] == "".join(item["chunk"] for item in said)
        assert stream.metrics["kv_used_tokens"] > 12
        messages = [{"role": "user", "content": "the river"}]
        chatted = await client.run("chat", {"messages": messages, "max_tokens": 12, "temperature": 0})
        assert chatted["text"] == said[-1]["text"]
        with pytest.raises(CallError, match=r"takes .* holds 512") as raised:
            await client.run("predict", {"prompt": "a" * 600})
        assert raised.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_caller_that_leaves_frees_the_slot_and_the_stages_are_told(folder: Path) -> None:
    inputs = {"prompt": "a", "max_tokens": 480, "temperature": 0}
    app = build_app(None, f"transformers:{folder}", ServerSettings(drain_s=7))
    async with app, AsyncClient(app) as client:
        left = []
        for _ in range(4):
            async with client.stream("predict", inputs) as stream:
                await anext(aiter(stream))
                left.append(stream.task_id)
        with anyio.fail_after(30):
            await client.run("predict", {"prompt": "a", "max_tokens": 2})
        for task_id in left:
            times = (await client.task(task_id)).cancel
            assert times is not None
            assert times["requested_at"] <= times["upstream_confirmed_at"] <= times["freed_at"]


EXIT = """
import asyncio, sys
from penstock import engines
from penstock.protocol.events import EngineRequest

engine = engines.open(sys.argv[1])
kept = []

async def main():
    for number in range(3):
        asked = EngineRequest(request_id=str(number), trace_id="t", model="m", prompt="a", max_tokens=500)
        kept.append(engine.generate(asked))
        if number < 2:
            print(type(await anext(kept[-1])).__name__, flush=True)
    # Leaves with both slots busy; nobody closes anything.
    raise SystemExit(3)

asyncio.new_event_loop().run_until_complete(main())
"""


def test_leaving_with_calls_in_flight_is_clean(folder: Path) -> None:
    left = subprocess.run(
        [sys.executable, "-c", EXIT, f"transformers:{folder}"],
        capture_output=True,
        text=True,
        timeout=90,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert left.returncode == 3, left.stderr
    assert left.stdout.split() == ["EngineStart", "EngineStart"]
    assert left.stderr == ""
