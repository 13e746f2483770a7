"""Key frames: whatever is left out, interpolation gives back within the tolerance; also by way of a file."""

from __future__ import annotations

from itertools import pairwise
from math import sin
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.label_studio import FILE as TASKS
from penstock.annotate.formats.moments import level
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.keyframes import Reduction, between, keys_of, parse_reduction
from penstock.annotate.overlaps import iou
from penstock.annotate.records import Box, Frame, Region, Source
from penstock.annotate.review import reading_label_studio_video as label_studio
from penstock.annotate.review.comparing import judge
from penstock.annotate.review.films import Film
from penstock.annotate.review.reading_cvat_video import read_cvat_video
from penstock.annotate.shapes.kinds import bounds, corners

WIDTH, HEIGHT = 200, 150
ROUNDED = 0.006  # pixels: CVAT's hundredths
REDUCTIONS = st.one_of(
    st.floats(0.02, 10).map(lambda px: Reduction(px=px)),
    st.floats(0.3, 0.99).map(lambda least: Reduction(iou=least)),
    st.builds(lambda px, least: Reduction(px=px, iou=least), st.floats(0.1, 10), st.floats(0.3, 0.99)),
)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(st.floats(0, WIDTH - 30)), draw(st.floats(0, HEIGHT - 30))
    return (x, y, x + draw(st.floats(1, 30)), y + draw(st.floats(1, 30)))


@st.composite
def paths(draw: st.DrawFn) -> list[tuple[int, Box]]:
    """A thing that moves evenly, stands, jumps or trembles, in frames that were looked at."""
    frames = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=25)))
    turns = [(at, draw(boxes())) for at in draw(st.sets(st.integers(0, 60), min_size=1, max_size=4))]
    turns = [(-1, turns[0][1]), *sorted(turns), (61, turns[-1][1])]
    noise = draw(st.sampled_from([0.0, 0.01, 0.5]))
    found = []
    for frame in frames:
        at = max(number for number, (turn, _) in enumerate(turns) if turn <= frame)
        sides = between(turns[at], turns[at + 1], frame)
        a, b, c, d = (side + noise * draw(st.floats(-1, 1)) for side in sides)
        found.append((frame, (max(a, 0.0), max(b, 0.0), max(c, a + 0.5, 0.6), max(d, b + 0.5, 0.6))))
    return found


@given(paths(), REDUCTIONS)
def test_what_is_left_out_is_given_back(path: list[tuple[int, Box]], reduction: Reduction) -> None:
    kept = keys_of(path, lambda at, shown: reduction.off(path[at][1], shown))
    assert kept[0] == 0
    assert kept[-1] == len(path) - 1
    assert kept == sorted(set(kept))
    for first, last in pairwise(kept):
        for frame, exact in path[first + 1 : last]:
            assert_within(reduction, exact, between(path[first], path[last], frame))


def assert_within(reduction: Reduction, exact: Box, shown: Box, more: float = 0.0) -> None:
    if reduction.px is not None:
        assert max(abs(a - b) for a, b in zip(exact, shown, strict=True)) <= reduction.px + more
    if reduction.iou is not None and not more:
        assert iou(exact, shown) >= reduction.iou


def test_what_moves_evenly_needs_its_ends_only() -> None:
    path = [(frame, (2.0 * frame, 5.0, 2.0 * frame + 9, 20.0)) for frame in range(0, 300, 3)]
    assert keys_of(path, lambda at, shown: Reduction(px=0.01).off(path[at][1], shown)) == [0, 99]


def test_a_wave_needs_fewer_the_more_it_may_be_off() -> None:
    path = [(n, (50 + 40 * sin(n / 20), 5.0, 80 + 40 * sin(n / 20), 20.0)) for n in range(300)]
    counts = [
        len(keys_of(path, lambda at, shown, px=px: Reduction(px=px).off(path[at][1], shown)))
        for px in (0.5, 1, 4)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] < 60
    assert counts[2] < 25


def read(name: str, folder: Path) -> list[Film]:
    if name == "cvat-video":
        return list(read_cvat_video(folder / "a" / "annotations.xml"))
    path = folder / TASKS
    path.write_text(path.read_text().replace('"predictions"', '"annotations"'))
    return list(label_studio.read_label_studio_video(path))


@st.composite
def films(draw: st.DrawFn) -> list[Frame]:
    """A video in which two things are seen now and then, one of them turned by an angle that may change."""
    tracks = {name: dict(draw(paths())) for name in draw(st.sampled_from(["a", "ab", "abc"]))}
    looked = sorted({frame for path in tracks.values() for frame in path})
    angles = draw(st.sampled_from([(0.0,), (30.0,), (-50.0, -50.0, 10.0)]))
    found = []
    for frame in looked:
        regions = []
        for name, path in tracks.items():
            if frame not in path:
                continue
            fields = {"id": f"{name}{frame}", "label": "x", "track": name, "score": 0.5, "src": "model"}
            left, top, right, bottom = path[frame]
            if name == "b":
                angle = angles[frame // 10 % len(angles)]
                obb = (100 + (left - 100) / 3, 75 + (top - 75) / 3, right - left, bottom - top, angle)
                regions.append(Region(box=bounds(corners(obb)), obb=obb, **fields))
            elif name == "c":
                ring = ((20.0, 20.0), (30.0 + frame // 20, 20.0), (25.0, 40.0))
                regions.append(Region(box=bounds(ring), polys=((ring,),), **fields))
            else:
                regions.append(Region(box=path[frame], **fields))
        place = {"src": "s", "name": "a.mp4", "frame": frame, "pts": frame, "tb": "1/10", "t": str(frame)}
        found.append(Frame(w=WIDTH, h=HEIGHT, regions=tuple(regions), **place))
    return found


@pytest.mark.parametrize("name", ["cvat-video", "label-studio-video"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(films(), st.one_of(st.none(), REDUCTIONS))
def test_read_again_all_is_where_it_was(name: str, frames: list[Frame], reduction: Reduction | None) -> None:
    source = Source(name="a.mp4", digest="s", kind="video", bytes=1, frames=61, rate="10", seconds="6.1")
    with TemporaryDirectory() as folder:
        written = FORMATS[name].write(Dataset(lambda: frames, [source], "m", reduction), Path(folder))
        assert FORMATS[name].check(Path(folder)) == []
        (film,) = read(name, Path(folder))
    interpolated = 0
    for frame in frames:
        given = film.given(frame)
        judged = list(judge(frame, given.regions))
        assert [one.verdict for one in judged] == ["accepted"] * len(frame.regions)
        assert [one.after for one in judged] == list(frame.regions)
        drawn = {one.track: one for one in given.regions}
        for region in frame.regions:
            one = drawn[region.track]
            interpolated += one.src == "interpolated"
            if reduction is None or one.src == "human":
                assert max(abs(a - b) for a, b in zip(region.box, one.box, strict=True)) <= 2 * ROUNDED
            elif region.obb is None or not region.obb[4]:
                assert_within(reduction, region.box, one.box)
            else:
                assert one.obb is not None
                assert_within(reduction, level(region.obb), level((*one.obb[:4], region.obb[4])))
    left = sum(count for what, count in written.losses.items() if "interpolation" in what)
    assert interpolated == left
    assert reduction is not None or left == 0


@pytest.mark.parametrize(
    "text", ["", "1", "px", "px=x", "px=0", "px=inf", "iou=1", "iou=-1", "so=1", "px=1,px=2"]
)
def test_what_is_no_tolerance_is_refused(text: str) -> None:
    if text == "px=1,px=2":
        assert parse_reduction(text) == Reduction(px=2)
        return
    with pytest.raises(ConfigError, match="no tolerance"):
        parse_reduction(text)


def test_a_tolerance_is_read_as_it_is_told() -> None:
    for text in ("px=1", "iou=0.95", "px=0.5,iou=0.9"):
        assert str(parse_reduction(text)) == text
