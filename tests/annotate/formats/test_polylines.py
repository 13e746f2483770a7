"""Polylines: cut at the edge of their image, written where a format has them, counted where it has not."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from math import hypot, isclose
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from penstock.annotate.formats.base import LOSSES
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.log import LOG
from penstock.annotate.looks.drawing import colour_of, draw
from penstock.annotate.records import Frame, Line, Region, Source, encode
from penstock.annotate.review.review import import_corrections
from penstock.annotate.shapes.kinds import around
from penstock.annotate.shapes.lines import around_lines, clip_lines

WIDTH, HEIGHT = 64, 48
BENT = ((4.5, 40.25), (20.0, 30.5), (60.0, 44.0))
LEVEL = ((10.0, 12.0), (50.0, 12.0))
UPRIGHT = ((8.0, 2.0), (8.0, 20.0))
SQUARE = ((30.0, 20.0), (40.0, 20.0), (40.0, 28.0), (30.0, 28.0))
KNOWN = {"cvat", "cvat-video", "label-studio", "datumaro", "labelme", "supervisely", "webvtt", "csv"}
VIDEO = Source(name="a.mp4", digest="s", kind="video", bytes=1, frames=3, rate="10", seconds="0.3")


def line(name: str, *lines: Line, **facts: object) -> Region:
    return Region(id=name, label="kerb", box=around_lines(lines), lines=lines, src="model", **facts)


REGIONS = (
    line("aa", BENT, score=0.5, track="t1"),
    line("bb", LEVEL),
    line("cc", LEVEL, UPRIGHT, text="two"),
    Region(id="dd", label="sign", box=around(((SQUARE,),)), polys=((SQUARE,),), lines=(BENT,), src="model"),
    Region(id="ee", label="sign", box=(1.0, 1.0, 9.0, 9.0), src="model"),
)


def frames() -> list[Frame]:
    place = {"src": "s", "name": "a.mp4", "tb": "1/10", "w": WIDTH, "h": HEIGHT}
    first = Frame(frame=0, pts=0, t="0", regions=REGIONS, **place)
    moved = tuple((x + 1, y) for x, y in BENT)
    return [first, Frame(frame=1, pts=1, t="0.1", regions=(line("ff", moved, track="t1"),), **place)]


def data() -> Dataset:
    return Dataset(frames, [VIDEO])


@pytest.mark.parametrize("name", FORMATS)
def test_lines_are_written_or_counted(name: str, tmp_path: Path) -> None:
    one = FORMATS[name]
    written = one.write(data(), tmp_path)
    assert one.check(tmp_path) == []
    assert ("lines" in one.says) == (name in KNOWN)
    assert written.losses.get(LOSSES["lines"], 0) == (0 if name in KNOWN else 4)  # what has an area
    assert written.losses.get(LOSSES["thin"], 0) == (0 if name in KNOWN else 1)
    assert written.regions == (6 if name in KNOWN else 5)


def cvat(folder: Path) -> list[list[list[float]]]:
    found = ElementTree.parse(folder / "annotations.xml").iter("polyline")
    return [
        [[float(x) for x in point.split(",")] for point in one.get("points", "").split(";")] for one in found
    ]


def labelme(folder: Path) -> list[list[list[float]]]:
    shapes = [
        one
        for path in sorted(folder.glob("annotations/*.json"))
        for one in json.loads(path.read_text())["shapes"]
    ]
    return [one["points"] for one in shapes if one["shape_type"] == "linestrip"]


def datumaro(folder: Path) -> list[list[list[float]]]:
    items = json.loads((folder / "annotations/train.json").read_text())["items"]
    found = [one["points"] for item in items for one in item["annotations"] if one["type"] == "polyline"]
    return [[list(pair) for pair in zip(one[::2], one[1::2], strict=True)] for one in found]


def label_studio(folder: Path) -> list[list[list[float]]]:
    results = [
        one
        for task in json.loads((folder / "tasks.json").read_text())
        for one in task["predictions"][0]["result"]
    ]
    lines = [one["value"]["vertices"] for one in results if one["type"] == "vectorlabels"]
    return [[[one["x"] * WIDTH / 100, one["y"] * HEIGHT / 100] for one in vertices] for vertices in lines]


@pytest.mark.parametrize("read", [cvat, labelme, datumaro, label_studio])
def test_lines_are_where_they_are(read: Callable[[Path], list[list[list[float]]]], tmp_path: Path) -> None:
    FORMATS[read.__name__.replace("_", "-")].write(data(), tmp_path)
    wanted = [one for frame in frames() for region in frame.regions for one in region.lines or ()]
    found = read(tmp_path)
    assert len(found) == len(wanted) == 6
    for one, other in zip(found, wanted, strict=True):
        assert np.array(one) == pytest.approx(np.array(other), abs=0.006)


def test_pixels_of_supervisely(tmp_path: Path) -> None:
    written = FORMATS["supervisely"].write(data(), tmp_path)
    objects = json.loads((tmp_path / "dataset/ann/a_000000.png.json").read_text())["objects"]
    assert objects[0]["geometryType"] == "line"
    assert objects[0]["points"]["exterior"] == [[4, 40], [20, 30], [60, 44]]
    assert written.losses["points of lines rounded to whole pixels"] == 15


def test_a_config_has_lines_only_where_there_are_some(tmp_path: Path) -> None:
    FORMATS["label-studio"].write(data(), tmp_path / "some")
    FORMATS["label-studio"].write(Dataset(lambda: [frames()[0].__class__(**bare())]), tmp_path / "none")
    assert "VectorLabels" in (tmp_path / "some/config.xml").read_text()
    assert "VectorLabels" not in (tmp_path / "none/config.xml").read_text()


def bare() -> dict[str, object]:
    one = frames()[0]
    return {**{name: getattr(one, name) for name in one.__struct_fields__}, "regions": REGIONS[4:]}


FILES = {
    "cvat": "annotations.xml",
    "cvat-video": "a/annotations.xml",
    "label-studio": "tasks.json",
    "label-studio-video": "tasks.json",
    "coco": "annotations/instances_train.json",
}


@pytest.mark.parametrize("kind", FILES)
def test_what_nobody_changed_stays(kind: str, tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b"".join(map(encode, frames())))
    FORMATS[kind].write(data(), tmp_path / kind)
    path = tmp_path / kind / FILES[kind]
    path.write_text(path.read_text().replace('"predictions"', '"annotations"'))
    agreement = import_corrections(tmp_path / LOG, kind, path)
    coarse = kind in ("label-studio-video", "coco")  # the polygon that has a line as well loses it
    assert agreement.verdicts["rejected"] == agreement.verdicts["added"] == 0
    assert agreement.verdicts["fixed"] == (1 if kind == "coco" else 0)
    assert agreement.verdicts["accepted"] == (5 if kind == "coco" else 6)
    assert coarse or agreement.iou["kerb"] == 1.0


def test_a_line_that_was_moved_is_fixed(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b"".join(map(encode, frames())))
    FORMATS["cvat"].write(data(), tmp_path / "cvat")
    path = tmp_path / "cvat/annotations.xml"
    path.write_text(path.read_text().replace("8.00,20.00", "8.00,24.00").replace("4.50,40.25;", "", 1))
    agreement = import_corrections(tmp_path / LOG, "cvat", path)
    assert agreement.verdicts == {"accepted": 4, "fixed": 2, "rejected": 0, "added": 0}


def test_lines_are_drawn() -> None:
    (one, *_) = frames()
    only = Frame(**{**bare(), "regions": REGIONS[:1]})
    assert one.regions[0] == only.regions[0]
    image = np.asarray(draw(Image.new("RGB", (4 * WIDTH, 4 * HEIGHT)), only))
    seen = (image == colour_of("kerb")).all(axis=2)
    assert seen[4 * 30 - 2 : 4 * 31 + 2, 4 * 20 - 2 : 4 * 20 + 2].any()
    assert not seen[4 * 43 :, : 4 * 6].any()  # a corner of its box


POINTS = st.tuples(st.floats(-50, 120), st.floats(-50, 120))


@given(st.lists(st.lists(POINTS, min_size=2, max_size=6).map(tuple), max_size=3).map(tuple))
def test_what_is_cut_is_inside_and_on_the_line(lines: tuple[Line, ...]) -> None:
    pieces = clip_lines(lines, WIDTH, HEIGHT)
    edges = [edge for one in lines for edge in pairwise(one)]
    for piece in pieces:
        assert len(piece) >= 2
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in piece)
        assert all(one != other for one, other in pairwise(piece))
        for one, other in pairwise(piece):
            middle = ((one[0] + other[0]) / 2, (one[1] + other[1]) / 2)
            assert min(apart(middle, *edge) for edge in edges) < 1e-6
    assert clip_lines(pieces, WIDTH, HEIGHT) == pieces
    # Nothing that is inside is lost.
    for one, other in edges:
        for share in (0.25, 0.5, 0.75):
            point = (one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1]))
            deep = 0.01 < point[0] < WIDTH - 0.01 and 0.01 < point[1] < HEIGHT - 0.01
            if deep and hypot(other[0] - one[0], other[1] - one[1]) > 0.01:
                assert min(apart(point, *edge) for piece in pieces for edge in pairwise(piece)) < 1e-6


def apart(point: tuple[float, float], first: tuple[float, float], last: tuple[float, float]) -> float:
    """Return how far a point is from an edge."""
    step = (last[0] - first[0], last[1] - first[1])
    length = step[0] ** 2 + step[1] ** 2
    if isclose(length, 0, abs_tol=1e-18):
        return hypot(point[0] - first[0], point[1] - first[1])
    share = ((point[0] - first[0]) * step[0] + (point[1] - first[1]) * step[1]) / length
    share = min(max(share, 0.0), 1.0)
    return hypot(point[0] - first[0] - share * step[0], point[1] - first[1] - share * step[1])
