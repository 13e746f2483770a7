"""However often a run is killed, what it writes is what it writes undisturbed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from annotate import films, worker
from penstock.annotate import records
from penstock.annotate.records import Manifest

pytest.importorskip("av")

WORKER = [sys.executable, worker.__file__]
LOG, MANIFEST = "annotations.jsonl", "manifest.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    films.write_all(folder, 60)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([*WORKER, out, "100000", "4", folder], check=True)
    return out


def lines(out: Path) -> int:
    path = out / LOG
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_until(out: Path, folder: Path, seek_from: int, window: int, count: int) -> bool:
    """Go on until the log has so many lines, then kill; returns whether it had ended before."""
    command = [*WORKER, str(out), str(seek_from), str(window), str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while process.poll() is None and lines(out) < count:
            time.sleep(0.002)
        process.kill()
        said = process.communicate()[1]
    assert process.returncode in (0, -9), said.decode()
    return process.returncode == 0


@pytest.mark.parametrize(("seek_from", "window"), [(0, 4), (100_000, 16)])
def test_killed_again_and_again_it_writes_the_same(
    folder: Path, undisturbed: Path, tmp_path: Path, seek_from: int, window: int
) -> None:
    chance = random.Random(seek_from)
    total = lines(undisturbed)
    for kills in range(100):
        if run_until(tmp_path, folder, seek_from, window, lines(tmp_path) + chance.randrange(1, total // 3)):
            break
        if kills % 3 == 0:  # as a loss of power leaves it
            with (tmp_path / LOG).open("ab") as file:
                file.write(b'{"v":1,"src":"sha')
    assert kills >= 4
    assert (tmp_path / LOG).read_bytes() == (undisturbed / LOG).read_bytes()
    assert (tmp_path / MANIFEST).read_bytes() == (undisturbed / MANIFEST).read_bytes()


def test_every_film_is_in_it(undisturbed: Path) -> None:
    frames = list(records.read((undisturbed / LOG).read_bytes().splitlines()))
    assert len({frame.name for frame in frames}) == 8
    squares = [region for frame in frames for region in frame.regions if region.label == "square"]
    assert len(squares) > 0.9 * len(frames)
    assert {region.track for region in squares} >= {"t1"}


def test_what_is_damaged_is_in_the_manifest(undisturbed: Path) -> None:
    made = msgspec.json.decode((undisturbed / MANIFEST).read_bytes(), type=Manifest)
    assert [(one.name, one.why, one.packets > 0) for one in made.damage] == [("f.mp4", "packets", True)]
    (hole,) = made.damage
    assert hole.begin is not None
    assert hole.end is not None
    assert 0 < Fraction(hole.begin) < Fraction(hole.end) < 2
    assert [source.name for source in made.sources if source.hurt] == ["f.mp4"]
    assert [source.frames for source in made.sources if source.name != "f.mp4"] == [60] * 7
