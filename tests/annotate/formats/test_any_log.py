"""Whatever a log says, what is written of it is sound."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock.annotate import rle
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.records import Frame, Region, Rle, Source, Tag
from penstock.annotate.shapes.kinds import around, bounds, corners
from penstock.annotate.shapes.lines import around_lines
from penstock.annotate.shapes.outline import outline

WIDTH, HEIGHT = 17, 11
LABELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
ACROSS, DOWN = st.floats(-3, WIDTH + 3), st.floats(-3, HEIGHT + 3)
SCORES = st.one_of(st.none(), st.floats(0, 1))
MASKS = arrays(np.bool_, (HEIGHT, WIDTH)).filter(lambda mask: bool(mask.any()))
KEYPOINTS = st.lists(st.tuples(ACROSS, DOWN, st.sampled_from([0, 1, 2])), min_size=1, max_size=3)


@st.composite
def regions(draw: st.DrawFn) -> dict[str, object]:
    kind = draw(st.sampled_from(["box", "polys", "rle", "obb", "lines"]))
    found: dict[str, object] = {"label": draw(LABELS), "score": draw(SCORES)}
    if kind == "box":
        (x1, x2), (y1, y2) = sorted((draw(ACROSS), draw(ACROSS))), sorted((draw(DOWN), draw(DOWN)))
        found["box"] = (x1, y1, x2, y2)
    elif kind == "obb":
        sides = draw(st.tuples(st.floats(0.5, 9), st.floats(0.5, 9), st.floats(-180, 180)))
        found["obb"] = (draw(st.floats(1, WIDTH - 1)), draw(st.floats(1, HEIGHT - 1)), *sides)
        found["box"] = bounds(corners(found["obb"]))
    elif kind == "lines":
        point = st.tuples(ACROSS, DOWN)
        line = st.lists(point, min_size=2, max_size=4).map(tuple)
        found["lines"] = draw(st.lists(line, min_size=1, max_size=2).map(tuple))
        found["box"] = around_lines(found["lines"])
    else:
        mask = draw(MASKS)
        polys, runs = outline(mask), rle.encode(mask)
        found.update(
            {"polys": polys} if kind == "polys" else {"rle": Rle(mask.shape, runs.text)}, box=around(polys)
        )
    optional = {
        "kp": KEYPOINTS.map(tuple),
        "track": st.sampled_from(["a", "b"]),
        "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "src": st.sampled_from(["interpolated", "human"]),
        "attrs": st.dictionaries(LABELS, st.one_of(st.integers(), st.booleans(), LABELS), max_size=2),
    }
    chosen = draw(st.fixed_dictionaries({}, optional=optional))
    return {"src": "model", **found, **chosen}


@st.composite
def logs(draw: st.DrawFn) -> list[Frame]:
    made: list[Frame] = []
    for name, number in (("a.png", 0), ("sub/b.png", 0), ("c.mp4", 0), ("c.mp4", 2), ("c.mp4", 3)):
        drawn = draw(st.lists(regions(), max_size=3))
        tracks = {one.get("track"): one for one in drawn}  # a track is in a frame once
        kept = [one for one in drawn if one.get("track") is None or tracks[one["track"]] is one]
        found = tuple(Region(id=f"{len(made)}{at}", **one) for at, one in enumerate(kept))
        tags = tuple(Tag(label) for label in draw(st.lists(LABELS, max_size=2, unique=True)))
        place = {"name": name, "frame": number, "pts": number, "tb": "1/10", "t": str(number)}
        made.append(Frame(src="s", w=WIDTH, h=HEIGHT, regions=found, labels=tags, **place))
    return made


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs())
def test_what_is_written_is_sound(name: str, frames: list[Frame]) -> None:
    video = Source(name="c.mp4", digest="s", kind="video", bytes=1, frames=4)
    with TemporaryDirectory() as folder:
        FORMATS[name].write(Dataset(lambda: frames, [video]), Path(folder))
        assert FORMATS[name].check(Path(folder)) == []
