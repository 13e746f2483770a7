"""Files and streams broken at random: each has an outcome, and nothing hangs or falls over."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from annotate import films, fuzzing

pytest.importorskip("av")

SECONDS = float(os.environ.get("PENSTOCK_FUZZ_MEDIA_S", "0"))  # 0: every kind of file once
MEMORY = 2 * 1024**3  # of the process that annotates


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    films.write_all(folder, 20)
    h264 = {"preset": "ultrafast", "bf": "2", "g": "10"}
    for name, codec, form, options in (
        ("i.webm", "libvpx-vp9", None, {"g": "10", "cpu-used": "8", "deadline": "realtime"}),
        ("j.mkv", "libx265", None, {"preset": "ultrafast", "x265-params": "keyint=10:log-level=none"}),
        ("k.ts", "mpeg2video", "mpegts", {"g": "10", "bf": "2"}),
        ("l.flv", "libx264", None, h264),
        ("m.nut", "mpeg4", "nut", {"g": "10"}),
        ("n.avi", "mjpeg", None, {}),
        ("o.mov", "libx264", None, {**h264, "movflags": "faststart"}),
        ("p.mp4", "libx264", None, {**h264, "movflags": "frag_keyframe+empty_moov"}),
        ("q.mkv", "ffv1", None, {}),
        ("r.mpg", "mpeg1video", "mpeg", {"g": "10"}),
    ):
        films.write(folder / name, 20, codec=codec, form=form, options=options)
    _write_images(folder)
    return folder


def _write_images(folder: Path) -> None:
    from PIL import Image

    pages = [Image.fromarray(films.pixels(number)) for number in range(4)]
    for name in ("a.png", "b.jpg", "c.bmp", "d.webp"):
        pages[0].save(folder / name)
    for name in ("e.gif", "f.tiff", "g.webp"):
        pages[0].save(folder / name, save_all=True, append_images=pages[1:])


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_what_is_broken_has_an_outcome(samples: Path, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32) if SECONDS else 20
    command = [sys.executable, fuzzing.__file__, str(samples), str(tmp_path / "out"), str(seed), str(SECONDS)]
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100 + 2 * SECONDS, check=False, preexec_fn=limited
    )
    told = f"seed {seed}, files in {tmp_path}:\n{done.stderr[-5000:]}"
    assert done.returncode == 0, told
    assert "Traceback" not in done.stderr, told
    outcomes: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) >= fuzzing.BATCH + 1
    # Each was read to its end, or it is said why not.
    assert [one for one in outcomes if not one["problem"] and one["frames"] is None] == [], told
    kinds = {
        "refused": sum(bool(one["problem"]) for one in outcomes),
        "damaged": sum(one["hurt"] for one in outcomes),
        "crashed": sum(one["crashes"] for one in outcomes),
    }
    assert kinds["refused"] > 3 < kinds["damaged"]
    if SECONDS:
        sys.stdout.write(f"seed {seed}: {len(outcomes)} files, {kinds}\n")
