"""Films made by the tests: a red square moves over a picture with much in it, so that damage shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, SIDE = 160, 120, 24
UNEVEN = (17, 33, 50, 40, 150)  # milliseconds between frames of a variable rate


def box(frame: int) -> tuple[int, int, int, int]:
    """Return where the square is: x1, y1, x2, y2."""
    x = (frame * 3) % (WIDTH - SIDE)
    y = (frame * 2) % (HEIGHT - SIDE)
    return (x, y, x + SIDE, y + SIDE)


def pixels(frame: int, seed: int = 0) -> Any:
    """Return a frame."""
    noise = np.random.default_rng(seed).integers(0, 160, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    picture = np.ascontiguousarray(noise.repeat(4, 0).repeat(4, 1))
    picture = np.roll(picture, frame, axis=1)
    x1, y1, x2, y2 = box(frame)
    picture[y1:y2, x1:x2] = (255, 0, 0)
    return picture


def write(
    path: Path,
    frames: int,
    *,
    codec: str = "libx264",
    form: str | None = None,
    options: dict[str, str] | None = None,
    gaps: Sequence[int] = (),
    pictures: Iterator[Any] | None = None,
    rate: int = 30,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a film.

    Args:
        gaps: Milliseconds between its frames, in turn; empty: ``rate``.
        pictures: Instead of the square.
    """
    shown = pictures or (pixels(number) for number in range(frames))
    with av.open(str(path), "w", format=form, container_options=container_options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if gaps:
            stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"threads": "1", **(options or {})}
        at = 0
        for number, picture in zip(range(frames), shown, strict=False):
            if not number:
                stream.width, stream.height = picture.shape[1], picture.shape[0]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if gaps:
                frame.pts, frame.time_base = at, Fraction(1, 1000)
                at += gaps[number % len(gaps)]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damage(path: Path, source: Path, begin: float, size: int) -> Path:
    """Write a copy of a film with so many zeros, from a fraction of it on."""
    data = bytearray(source.read_bytes())
    at = int(len(data) * begin)
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    return path


def write_all(folder: Path, frames: int = 90) -> list[Path]:
    """Write one film of each kind whose frames are told apart in another way."""
    h264 = {"preset": "ultrafast", "bf": "2", "g": "30", "crf": "18"}
    films = [
        write(folder / "a.mp4", frames, options=h264),
        write(folder / "b.ts", frames, form="mpegts", options=h264),
        write(folder / "c.mkv", frames, options=h264, gaps=UNEVEN),
        write(folder / "d.avi", frames, codec="mpeg4", options={"g": "30", "b": "2000000", "bf": "2"}),
        write(
            folder / "e.mp4",
            frames,
            options={
                "preset": "ultrafast",
                "x264-params": "intra-refresh=1:keyint=20:bframes=0",
                "crf": "18",
            },
        ),
        write(folder / "g.avi", frames, options=h264),
        write(folder / "h.h264", frames, form="h264", options=h264),
    ]
    whole = write(folder / "f.mp4", frames, options=h264)
    films.append(damage(whole, whole, 0.6, 20000))
    return sorted(films)
