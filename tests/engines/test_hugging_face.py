"""Models in the local Hugging Face cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from penstock.engines import hugging_face
from penstock.engines.store import ModelStore
from penstock.errors import CallError, ErrorCode

SPEC = "owner/repo/sub/model.gguf"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path / "models--owner--repo"


def snapshot(repository: Path, revision: str, age_s: int = 0) -> Path:
    file = repository / "snapshots" / revision / "sub" / "model.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF")
    os.utime(file, (1_700_000_000 - age_s,) * 2)
    return file


def test_main_decides_between_revisions(repository: Path) -> None:
    named = snapshot(repository, "aaa", age_s=100)
    snapshot(repository, "bbb")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa\n")
    assert hugging_face.cached(SPEC) == named
    assert ModelStore().resolve(SPEC) == named
    assert ModelStore().pull(SPEC) == named


def test_without_main_the_newest_is_taken(repository: Path) -> None:
    snapshot(repository, "aaa", age_s=100)
    newest = snapshot(repository, "bbb")
    assert hugging_face.cached(SPEC) == newest


def test_hf_home_holds_the_cache_in_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    file = snapshot(tmp_path / "hub" / "models--owner--repo", "aaa")
    assert hugging_face.cached(SPEC) == file


@pytest.mark.parametrize("spec", ["owner/repo", "owner/repo/model.bin", "owner//model.gguf", "a/../b.gguf"])
def test_other_specs_are_none_of_ours(spec: str) -> None:
    assert not hugging_face.is_spec(spec)
    assert hugging_face.cached(spec) is None


def test_downloading_without_the_package_says_what_to_install(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: None)
    with pytest.raises(CallError, match="pip install huggingface_hub") as raised:
        ModelStore().pull(SPEC)
    assert raised.value.code is ErrorCode.UNAVAILABLE


def test_with_the_package_it_is_asked(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = lambda repo, file: f"/got/{repo}/{file}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: True)
    assert ModelStore().pull(SPEC) == Path("/got/owner/repo/sub/model.gguf")


def test_a_failed_download_is_typed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(repo: str, file: str) -> str:
        raise OSError("no route")

    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: True)
    with pytest.raises(CallError, match="no route") as raised:
        ModelStore().pull(SPEC)
    assert raised.value.code is ErrorCode.UNAVAILABLE
