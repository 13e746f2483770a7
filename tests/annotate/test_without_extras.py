"""What works without the extras, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys
for name in {missing!r}:
    sys.modules[name] = None
from penstock import App, Runtime
from penstock.annotate import Model, Settings, annotate
rt = Runtime()

@rt.command("boxes")
async def boxes(image: dict) -> dict:
    return {{"regions": [{{"label": "x", "box": [0, 0, 2, 2]}}]}}

async def main():
    async with App(rt) as app:
        settings = Settings(models=(Model(command="boxes"),))
        async with annotate({source!r}, app, settings, out={out!r}) as frames:
            async for frame in frames:
                print(frame.w, frame.h, len(frame.regions))

asyncio.run(main())
"""


def ran(tmp_path: Path, missing: tuple[str, ...], source: Path) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(missing=missing, source=str(source), out=str(tmp_path / "out"))
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6)).save(path)
    return path


def test_images_need_neither_av_nor_shapely(tmp_path: Path, picture: Path) -> None:
    done = ran(tmp_path, ("av", "shapely"), picture)
    assert (done.returncode, done.stdout) == (0, "8 6 1\n"), done.stderr


def test_video_names_its_extra(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    done = ran(tmp_path, ("av",), tmp_path / "a.mp4")
    assert "penstock[auto-annotation]" in done.stderr.splitlines()[-1]


def test_images_name_theirs(tmp_path: Path, picture: Path) -> None:
    done = ran(tmp_path, ("PIL", "PIL.Image", "numpy"), picture)
    assert "penstock[images]" in done.stderr.splitlines()[-1]
