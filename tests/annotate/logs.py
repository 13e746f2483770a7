"""A log with everything in it that a format may have to say."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from penstock.annotate import rle
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.log import LOG
from penstock.annotate.manifests import MANIFEST, save
from penstock.annotate.records import (
    End,
    Frame,
    Manifest,
    Region,
    Rle,
    Source,
    Tag,
    encode,
    region_id,
    seconds_text,
)
from penstock.annotate.shapes.kinds import around, bounds, corners
from penstock.annotate.shapes.outline import outline

WIDTH, HEIGHT = 64, 48
RING = (np.hypot(*np.ogrid[-20:28, -30:34]) < 15) & ~(np.hypot(*np.ogrid[-20:28, -33:31]) < 6)
TWO = np.zeros((HEIGHT, WIDTH), dtype=bool)
TWO[3:9, 2:7] = TWO[30:40, 50:60] = True
OBB = (30.0, 24.0, 20.0, 10.0, 30.0)
SOURCES = (
    Source(name="shapes.png", digest="sha256:aa", kind="image", bytes=1),
    Source(name="sub/empty.png", digest="sha256:bb", kind="image", bytes=1),
    Source(name="walk.mp4", digest="sha256:cc", kind="video", bytes=1, frames=31, seconds="3.1", rate="10"),
)


def region(number: int, **facts: Any) -> Region:
    facts = {"label": "thing", "src": "model", **facts}
    return Region(id=region_id("sha256:aa", 0, number), **facts)


def shapes() -> tuple[Region, ...]:
    """One region of every kind."""
    disk = outline(np.hypot(*np.ogrid[-24:24, -32:32]) < 9)
    ring, two = outline(RING), outline(TWO)
    mask = rle.encode(RING)
    return (
        region(
            1, score=0.9375, box=(1.5, 2.25, 30.0, 40.125), text="a <b> & 'c'", attrs={"color": "red", "n": 3}
        ),
        region(2, label="disk", score=0.5, box=around(disk), polys=disk, track="t9"),
        region(3, label="ring", score=0.25, box=around(ring), polys=ring),
        region(4, label="two", score=0.125, box=around(two), polys=two, src="human"),
        region(5, label="ring", score=1.0, box=mask.box(), rle=Rle((HEIGHT, WIDTH), mask.text)),
        region(6, label="turned", score=0.75, box=bounds(corners(OBB)), obb=OBB),
        region(7, label='na: me,\n"x"', box=(0.0, 0.0, float(WIDTH), float(HEIGHT))),
        region(
            8,
            label="person",
            score=0.5,
            box=(4.0, 4.0, 20.0, 20.0),
            kp=((5.0, 6.0, 2), (10.5, 7.0, 1), (0.0, 0.0, 0)),
        ),
    )


def frames(*, pictures: bool = True, video: bool = True) -> Iterator[Frame]:
    still = {"frame": 0, "pts": None, "tb": "1/1", "t": "0", "w": WIDTH, "h": HEIGHT}
    if pictures:
        tags = (Tag("indoor", 0.75), Tag("empty"))
        yield Frame(src="sha256:aa", name="shapes.png", regions=shapes(), labels=tags, **still)
        yield Frame(src="sha256:bb", name="sub/empty.png", **still)
    if video:
        yield from map(walk, range(0, 31, 5))


def walk(number: int) -> Frame:
    """A frame of a video, every fifth of which was looked at: one thing moves, one is away for a while."""
    time = Fraction(number, 10)
    moving = Region(
        id=region_id("sha256:cc", number, "a"),
        label="person",
        score=0.5,
        box=(2.0 + number, 5.0, 12.0 + number, 25.0),
        track="a",
        src="model",
    )
    square = outline(np.pad(np.ones((5, 6), dtype=bool), ((20, 23), (30, 28))))
    shape = Region(
        id=region_id("sha256:cc", number, "b"),
        label="disk",
        box=around(square),
        polys=square,
        track="b",
        src="interpolated" if number == 5 else "model",
    )
    return Frame(
        src="sha256:cc",
        name="walk.mp4",
        frame=number,
        pts=number * 1024,
        tb="1/10240",
        t=seconds_text(time),
        w=WIDTH,
        h=HEIGHT,
        regions=(moving,) if number == 15 else (moving, shape),
    )


def dataset(**choice: bool) -> Dataset:
    return Dataset(lambda: frames(**choice), SOURCES, "detector 2")


def write_log(folder: Path, **choice: bool) -> Path:
    """Write the log and its manifest; return the log."""
    lines = list(frames(**choice))
    count = sum(len(frame.regions) for frame in lines)
    end = End(frames=len(lines), regions=count, digest="sha256:00")
    (folder / LOG).write_bytes(b"".join(map(encode, [*lines, end])))
    manifest = Manifest(
        state="done",
        config="c",
        command="detect",
        model={"name": "detector", "version": "2"},
        sources=SOURCES,
    )
    save(manifest, folder / MANIFEST)
    return folder / LOG


def draw(name: str, data: Dataset, folder: Path) -> None:
    """Write a grey picture for each frame, where readers of a format look for it."""
    for shot in data.shots():
        path = folder / FORMATS[name].picture(shot)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (shot.frame.w, shot.frame.h), (90, 90, 90)).save(path)
