"""Answers of every declared form."""

from __future__ import annotations

import base64
import io
from math import pi
from typing import Any

import numpy as np
import pytest

from penstock.annotate import rle
from penstock.annotate.answers import Adapter, AnswerFormat, Found, parse_format
from penstock.annotate.errors import AnswerError, ConfigError
from penstock.annotate.records import Tag

W, H = 20, 10
MASK = np.zeros((H, W), dtype=bool)
MASK[2:5, 3:9] = True
SQUARE = [[1, 1], [5, 1], [5, 5]]


def png(mask: Any) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray((mask * 255).astype(np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def found(form: str, answer: Any) -> list[Found]:
    return Adapter(parse_format(form)).read(answer, W, H, "here").regions


def one(form: str, **fields: Any) -> Found:
    (region,) = found(form, {"regions": [{"label": "x", **fields}]})
    return region


@pytest.mark.parametrize(
    ("form", "box", "expected"),
    [
        ("", [1, 2, 5, 6], (1, 2, 5, 6)),
        ("boxes=xywh", [1, 2, 5, 6], (1, 2, 6, 8)),
        ("boxes=cxcywh", [5, 6, 4, 2], (3, 5, 7, 7)),
        ("units=norm", [0.1, 0.2, 0.5, 1.0], (2, 2, 10, 10)),
        ("units=norm,boxes=xywh", [0.1, 0.2, 0.5, 0.5], (2, 2, 12, 7)),
    ],
)
def test_boxes(form: str, box: list[float], expected: tuple[float, ...]) -> None:
    assert one(form, box=box).box == pytest.approx(expected)


@pytest.mark.parametrize(
    ("form", "value", "parts"),
    [
        ("polygons=ring", SQUARE, [[SQUARE]]),
        ("polygons=flat", [1, 1, 5, 1, 5, 5], [[SQUARE]]),
        ("polygons=flats", [[1, 1, 5, 1, 5, 5]] * 2, [[SQUARE], [SQUARE]]),
        ("polygons=rings", [SQUARE, SQUARE], [[SQUARE, SQUARE]]),
        ("polygons=parts", [[SQUARE], [SQUARE]], [[SQUARE], [SQUARE]]),
    ],
)
def test_polygons(form: str, value: Any, parts: Any) -> None:
    polys = one(f"polygon=p,{form}", p=value).polys or ()
    assert [[[list(point) for point in ring] for ring in part] for part in polys] == parts


@pytest.mark.parametrize(
    ("form", "value", "lines"),
    [
        ("polylines=line", SQUARE, [SQUARE]),
        ("polylines=flat", [1, 1, 5, 1, 5, 5], [SQUARE]),
        ("polylines=lines", [SQUARE, SQUARE[:2]], [SQUARE, SQUARE[:2]]),
        ("polylines=flats", [[1, 1, 5, 1, 5, 5], [1, 1, 5, 1]], [SQUARE, SQUARE[:2]]),
    ],
)
def test_polylines(form: str, value: Any, lines: Any) -> None:
    found = one(f"polyline=p,{form}", p=value).lines or ()
    assert [[list(point) for point in line] for line in found] == lines
    halves = one(f"polyline=p,units=norm,{form}", p=value).lines or ()
    assert halves[0][0] == (W, H)


def test_a_line_has_two_points() -> None:
    with pytest.raises(AnswerError, match="item 0, field 'lines': a line should have two points"):
        one("", lines=[[[1, 1]]])


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("masks=rle", rle.encode(MASK).as_json()),
        ("masks=rle", {"size": [H, W], "counts": list(rle.encode(MASK).counts)}),
        ("masks=png", png(MASK)),
        ("masks=array", MASK.astype(int).tolist()),
        ("masks=array,threshold=0", np.where(MASK, 3.5, -2.0).tolist()),
    ],
)
def test_masks(form: str, value: Any) -> None:
    assert one(f"mask=m,{form}", m=value).mask == rle.encode(MASK)


@pytest.mark.parametrize(
    ("form", "value", "points"),
    [
        ("points=xy", [[1, 2]], ((1, 2, 2),)),
        ("points=xyv", [[1, 2, 1]], ((1, 2, 1),)),
        ("points=xys", [[1, 2, 0.9], [3, 4, 0.1]], ((1, 2, 2), (3, 4, 0))),
        ("points=flat", [1, 2, 2, 3, 4, 0], ((1, 2, 2), (3, 4, 0))),
    ],
)
def test_keypoints(form: str, value: Any, points: Any) -> None:
    assert one(f"keypoints=k,{form}", k=value).kp == points


def test_rotated_boxes_in_radians() -> None:
    assert one("angle=radians", obb=[5, 5, 4, 2, pi / 2]).obb == pytest.approx((5, 5, 4, 2, 90))


def test_columns_and_classes() -> None:
    answer = {"out": {"b": [[0, 0, 1, 1], [1, 1, 2, 2]], "c": [1, 0], "s": [0.5, 1]}}
    form = "items=out,layout=columns,box=b,label=c,score=s,names=cat|dog"
    assert [(one.label, one.score) for one in found(form, answer)] == [("dog", 0.5), ("cat", 1)]
    assert found(form, {"out": {"b": [], "c": [], "s": []}}) == []


def test_an_answer_that_is_the_list() -> None:
    assert [one.label for one in found("items=,constant=face,box=b", [{"b": [0, 0, 1, 1]}])] == ["face"]


def test_tags_text_track_and_attributes() -> None:
    region = one("", box=[0, 0, 1, 1], text="hi", track=7, attrs={"a": 1})
    assert (region.text, region.track, region.attrs) == ("hi", "7", {"a": 1})
    answer = Adapter(AnswerFormat()).read(
        {"regions": [], "labels": [{"label": "day", "score": 0.5}]}, W, H, "here"
    )
    assert answer.tags == (Tag("day", 0.5),)


@pytest.mark.parametrize(
    ("form", "answer", "said"),
    [
        ("", {}, "field 'regions': should be a list of regions, and is not there"),
        ("", [], "field 'regions'"),
        ("", {"regions": [1]}, "item 0, field 'regions': should be an object"),
        ("", {"regions": [{}]}, "item 0, field 'label'"),
        ("", {"regions": [{"label": "x", "box": [1, 2, 3]}]}, "item 0, field 'box': should be 4 numbers"),
        (
            "",
            {"regions": [{"label": "x"}, {"label": "x", "box": [1, 2, 3, "4"]}]},
            "item 1, field 'box': .*'4'",
        ),
        ("", {"regions": [{"label": "x", "score": "high"}]}, "'score': should be a number"),
        ("", {"regions": [{"label": "x", "box": [True, 0, 1, 1]}]}, "numbers"),
        ("", {"regions": [{"label": "x", "rle": {"size": [2, 2], "counts": [4]}}]}, "2 rows and 2 columns"),
        ("", {"regions": [{"label": "x", "rle": {"size": [H, W], "counts": [4]}}]}, "the runs of a mask"),
        ("", {"regions": [{"label": "x", "kp": [[1, 2, 7]]}]}, "visibility"),
        ("masks=png", {"regions": [{"label": "x", "rle": "no base64!"}]}, "no PNG in base64"),
        ("masks=png", {"regions": [{"label": "x", "rle": png(MASK[:5])}]}, "5 rows"),
        ("masks=array", {"regions": [{"label": "x", "rle": [[1], [1, 2]]}]}, "rows of numbers"),
        ("polygons=flat", {"regions": [{"label": "x", "polys": [1, 2, 3]}]}, "pairs"),
        ("names=a", {"regions": [{"label": 1}]}, "is class 1"),
        ("layout=columns", {"regions": {"box": [[0, 0, 1, 1]], "label": []}}, "different lengths"),
        ("layout=columns", {"regions": {}}, "none of the lists"),
        ("", {"regions": [], "labels": "day"}, "field 'labels'"),
    ],
)
def test_what_does_not_fit_is_named(form: str, answer: Any, said: str) -> None:
    with pytest.raises(AnswerError, match=f"^here.*{said}"):
        Adapter(parse_format(form)).read(answer, W, H, "here")


@pytest.mark.parametrize("form", ["boxes", "boxes=xyz", "nothing=1", "threshold=high"])
def test_a_format_that_is_none_is_refused(form: str) -> None:
    with pytest.raises(ConfigError):
        parse_format(form)
