"""Films of many codecs and forms of pixels, of one frame, of pixels that are no squares, of two sizes."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import av
import numpy as np
import pytest

from annotate import films
from annotate.detectors import rt
from penstock import App
from penstock.annotate import Frame, Model, Refining, Settings, annotate
from penstock.annotate.formats.registry import export
from penstock.annotate.records import Manifest

pytestmark = pytest.mark.anyio

FRAMES = 9
QUICK = {"preset": "ultrafast"}
# Name, codec, form of pixels, options; and whether it has colours, by which the square is found.
KINDS: list[tuple[str, str, str, dict[str, str], bool]] = [
    ("vp9.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}, True),
    ("hevc.mkv", "libx265", "yuv420p", {**QUICK, "crf": "8", "x265-params": "log-level=none"}, True),
    ("av1.mp4", "libsvtav1", "yuv420p", {"preset": "9", "crf": "8"}, True),
    ("mpeg2.ts", "mpeg2video", "yuv420p", {"b": "4000000", "bf": "2"}, True),
    ("mjpeg.avi", "mjpeg", "yuvj420p", {"b": "30000000"}, True),
    ("ffv1.mkv", "ffv1", "bgra", {}, True),
    ("ten.mp4", "libx264", "yuv420p10le", {**QUICK, "crf": "10"}, True),
    ("full.mp4", "libx264", "yuv444p", {**QUICK, "crf": "10"}, True),
    ("grey.mkv", "ffv1", "gray16le", {}, False),
    ("long.mp4", "libx264", "yuv420p", {**QUICK, "g": "600", "bf": "3", "crf": "10"}, True),
    ("open.ts", "libx264", "yuv420p", {"preset": "veryfast", "x264-params": "open-gop=1:keyint=4"}, True),
]


def encoded(path: Path, *about: Any, **more: Any) -> Path:
    # In a thread of its own: SVT-AV1 makes the one that calls it a real-time one where it may, and so would
    # be all that starts from there.
    with ThreadPoolExecutor(1) as encoder:
        return encoder.submit(_encoded, path, *about, **more).result()


def _encoded(
    path: Path,
    codec: str,
    pixels: str,
    options: dict[str, str],
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (films.WIDTH, films.HEIGHT),
    sar: Fraction | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.options = {"threads": "1", **options}
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        for number in range(frames):
            picture = np.ascontiguousarray(films.pixels(number)[: size[1], : size[0]])
            shown = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(shown.reformat(format=pixels)))
        container.mux(stream.encode())
    return path


async def annotated(source: Path, out: Path) -> tuple[list[Frame], Manifest]:
    settings = Settings(models=(Model(command="red"),), refining=Refining(min_score=0.6))
    with anyio.fail_after(60):
        async with App(rt) as app, annotate(source, app, settings, out=out) as frames:
            found = [frame async for frame in frames]
            return found, frames.manifest


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options", "coloured"), KINDS, ids=lambda one: str(one)[:9]
)
async def test_every_frame_is_looked_at(
    name: str, codec: str, pixels: str, options: dict[str, str], coloured: bool, tmp_path: Path
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = encoded(tmp_path / name, codec, pixels, options)
    assert not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) == os.SCHED_OTHER
    found, manifest = await annotated(path, tmp_path / "out")
    assert [frame.frame for frame in found] == list(range(FRAMES))
    assert {(frame.w, frame.h, frame.flags) for frame in found} == {(films.WIDTH, films.HEIGHT, ())}
    assert [frame.seconds for frame in found] == pytest.approx([n / 30 for n in range(FRAMES)], abs=0.001)
    assert manifest.sources[0].frames == FRAMES
    boxes = [region.box for frame in found for region in frame.regions]
    assert len(boxes) == (FRAMES if coloured else 0)
    for number, box in enumerate(boxes):
        assert max(abs(a - b) for a, b in zip(box, films.box(number), strict=True)) <= 4


async def test_one_frame_is_a_film_too(tmp_path: Path) -> None:
    path = encoded(tmp_path / "one.mp4", "libx264", "yuv420p", {**QUICK, "crf": "10"}, frames=1)
    found, manifest = await annotated(path, tmp_path / "out")
    assert [(frame.frame, frame.t) for frame in found] == [(0, "0")]
    assert (manifest.state, manifest.sources[0].frames) == ("done", 1)


async def test_pixels_that_are_not_square_are_told(tmp_path: Path) -> None:
    path = encoded(tmp_path / "wide.mp4", "libx264", "yuv420p", {**QUICK, "crf": "10"}, sar=Fraction(4, 3))
    found, manifest = await annotated(path, tmp_path / "out")
    assert manifest.sources[0].sar == "4/3"
    assert (found[0].w, found[0].h) == (films.WIDTH, films.HEIGHT)  # as they are stored


async def test_a_film_that_changes_its_size(tmp_path: Path) -> None:
    options = {**QUICK, "crf": "10"}
    first = encoded(tmp_path / "a.ts", "libx264", "yuv420p", options)
    other = encoded(tmp_path / "b.ts", "libx264", "yuv420p", options, size=(128, 96))
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + other.read_bytes())
    found, _ = await annotated(path, tmp_path / "out")
    sizes = [(frame.w, frame.h) for frame in found]
    assert sizes == [(films.WIDTH, films.HEIGHT)] * FRAMES + [(128, 96)] * FRAMES
    report = export(tmp_path / "out" / "annotations.jsonl", ["coco", "yolo", "voc"], tmp_path)
    assert report.is_sound
    images = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["images"]
    assert [(image["width"], image["height"]) for image in images] == sizes
