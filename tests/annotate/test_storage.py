"""A disk that is really full, or a file that may not grow: what is said, what is kept, and how it goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from annotate import films
from annotate.detectors import rt
from penstock import App
from penstock.annotate import Model, Settings, annotate
from penstock.annotate.errors import StorageError
from penstock.annotate.media import sources
from penstock.annotate.media.messages import Limits
from penstock.annotate.records import Frame, Manifest, decode

pytestmark = pytest.mark.anyio
pytest.importorskip("av")

SETTINGS = Settings(models=(Model(command="ten"),))
LOG, MANIFEST = "annotations.jsonl", "manifest.json"
PROJECT = """
from penstock import Runtime

rt = Runtime()


@rt.command("ten")
async def ten(image: dict) -> dict:
    return {"regions": [{"label": "x", "score": 0.9, "box": [n, n, n + 20, n + 20]} for n in range(10)]}
"""
# Runs what stands behind it with files that may have so many bytes at most.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.executable, [sys.executable, "-m", "penstock.cli", *sys.argv[2:]])
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.write(tmp_path_factory.mktemp("film") / "a.mkv", 60, options={"preset": "ultrafast"})


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with App(rt) as app:
        yield app


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for 40 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mounted("-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)):
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _mounted(*words: str) -> bool:
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid():
        return False
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


async def run(film: Path, app: App, out: Path) -> list[Frame]:
    with anyio.fail_after(60):
        async with annotate(film, app, SETTINGS, out=out) as frames:
            return [frame async for frame in frames]


def both(out: Path) -> tuple[bytes, bytes]:
    return (out / LOG).read_bytes(), (out / MANIFEST).read_bytes()


async def test_on_a_full_disk_it_ends_and_with_room_it_goes_on(
    film: Path, app: App, small: Path, tmp_path: Path
) -> None:
    await run(film, app, tmp_path / "whole")
    with pytest.raises(StorageError, match=r"annotations\.jsonl.*disk is full.*same command goes on"):
        await run(film, app, small / "out")
    kept = (small / "out" / LOG).read_bytes()
    assert kept.endswith(b"\n")
    assert [decode(line).frame for line in kept.splitlines()] == list(range(kept.count(b"\n")))  # type: ignore[union-attr]
    assert 10 < kept.count(b"\n") < 60
    assert sorted(os.listdir(small / "out")) == [LOG, MANIFEST]
    # Elsewhere, where there is room; and here, when some was made.
    shutil.copytree(small / "out", tmp_path / "moved")
    await run(film, app, tmp_path / "moved")
    assert both(tmp_path / "moved") == both(tmp_path / "whole")
    assert _mounted("-o", "remount,size=1m", str(small))
    await run(film, app, small / "out")
    assert both(small / "out") == both(tmp_path / "whole")


async def test_where_not_even_the_manifest_can_be_written_the_log_is_kept(
    film: Path, app: App, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(StorageError):
        await run(film, app, small / "out")
    kept = (small / "out" / LOG).read_bytes()
    _fill(small / "filler")
    for _ in range(2):
        with pytest.raises(StorageError, match="disk is full"):
            await run(film, app, small / "out")
        assert (small / "out" / LOG).read_bytes() == kept
    (small / "filler").unlink()
    assert _mounted("-o", "remount,size=1m", str(small))
    await run(film, app, small / "out")
    await run(film, app, tmp_path / "whole")
    assert both(small / "out") == both(tmp_path / "whole")


async def test_on_a_disk_without_any_room_nothing_begins(film: Path, app: App, small: Path) -> None:
    _fill(small / "filler")
    with pytest.raises(StorageError, match="disk is full"):
        await run(film, app, small / "out")


def test_what_is_not_a_file_cannot_be_kept_on_a_full_disk(small: Path) -> None:
    with open("/dev/zero", "rb") as endless, pytest.raises(StorageError, match="disk is full"):
        sources.find(["-"], small / "media", Limits(), endless)
    assert not list(small.rglob("*.part"))


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1000))


def test_files_that_may_not_grow_end_a_run_in_words(film: Path, tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    words = [str(film), "--model", "project.py", "--command", "ten"]

    def ran(*command: str) -> Any:
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    ended = ran("-c", LIMITED, "20000", "annotate", *words, "--out", "small")
    assert ended.returncode == 1
    assert "annotations.jsonl cannot be written: a file may not become so large" in ended.stderr
    assert "Traceback" not in ended.stderr
    kept = (tmp_path / "small" / LOG).read_bytes()
    assert kept.endswith(b"}\n")
    assert 5000 < len(kept) <= 20000
    made = msgspec.json.decode((tmp_path / "small" / MANIFEST).read_bytes(), type=Manifest)
    assert made.state == "failed"
    assert "may not become so large" in made.problem
    for out in ("small", "whole"):
        done = ran("-m", "penstock.cli", "annotate", *words, "--out", out, "--resume")
        assert done.returncode == 0, done.stderr
    assert both(tmp_path / "small") == both(tmp_path / "whole")
