"""The lines of a log."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.annotate import records
from penstock.annotate.records import End, Frame, Region, Rle, Tag

FULL = Region(
    id="ab",
    label="face",
    score=0.93,
    box=(1.0, 2.0, 3.5, 4.0),
    obb=(2.0, 3.0, 4.0, 5.0, 30.0),
    polys=((((0.0, 0.0), (4.0, 0.0), (4.0, 4.0)), ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0))),),
    rle=Rle((4, 5), "04"),
    kp=((1.0, 2.0, 2),),
    text="Zoë",
    track="t3",
    src="human",
    attrs={"age": 4},
)


def frame(*regions: Region) -> Frame:
    return Frame(
        src="sha256:00", name="a.mp4", frame=3, pts=None, tb="1/15360", t="3.9", w=4, h=5, regions=regions
    )


def test_a_line_has_this_form() -> None:
    region = Region(id="ab", label="face", box=(1, 2, 3, 4), src="model")
    line = records.encode(
        msgspec.structs.replace(frame(region), labels=(Tag("day", 0.5),), flags=("corrupt",))
    )
    assert line == (
        b'{"v":1,"src":"sha256:00","name":"a.mp4","frame":3,"pts":null,"tb":"1/15360","t":"3.9","w":4,"h":5,'
        b'"rot":0,"flags":["corrupt"],"regions":[{"id":"ab","label":"face","box":[1,2,3,4],"src":"model"}],'
        b'"labels":[{"label":"day","score":0.5}]}\n'
    )


def test_what_is_written_is_read() -> None:
    end = End(frames=1, regions=1, digest="sha256:11")
    lines = [records.encode(frame(FULL)), records.encode(end)]
    assert [records.decode(line) for line in lines] == [frame(FULL), end]
    assert list(records.read(lines)) == [frame(FULL)]


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"v":1}', b'{"v":1,"end":true}', b'\xff{"v":1}'])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        records.decode(line)


@pytest.mark.parametrize(
    "wrong",
    [
        {"box": (3.0, 0.0, 1.0, 4.0)},
        {"box": (0.0, 0.0, float("nan"), 4.0)},
        {"box": (0.0, 0.0, float("inf"), 4.0)},
        {"score": float("nan")},
        {"obb": (0.0, 0.0, 1.0, 1.0, float("inf"))},
        {"polys": ((((0.0, 0.0), (1.0, 1.0)),),)},
        {"lines": (((0.0, 0.0),),)},
        {"lines": (((0.0, 0.0), (float("nan"), 1.0)),)},
        {"polys": ((((0.0, 0.0), (1.0, 1.0), (float("nan"), 1.0)),),)},
    ],
)
def test_a_region_that_is_none_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="region ab"):
        msgspec.structs.replace(FULL, **wrong)


@settings(deadline=None, max_examples=60)
@given(st.fractions())
def test_seconds_are_exact(value: Fraction) -> None:
    text = records.seconds_text(value)
    assert Fraction(text) == value
    assert records.seconds_text(Fraction(text)) == text


@pytest.mark.parametrize(
    ("value", "text"), [((39, 10), "3.9"), ((-1, 20), "-0.05"), ((2, 1), "2"), ((1, 3), "1/3"), ((0, 1), "0")]
)
def test_seconds_read_well(value: tuple[int, int], text: str) -> None:
    assert records.seconds_text(Fraction(*value)) == text


def test_an_id_is_of_all_that_is_said() -> None:
    said = ("sha256:00", 3, FULL.box, "0")
    others = [
        ("sha256:01", *said[1:]),
        (said[0], 4, *said[2:]),
        (*said[:2], (0, 0, 1, 1), "0"),
        (*said[:3], "1"),
    ]
    assert records.region_id(*said) == records.region_id(*said)
    assert len({records.region_id(*one) for one in (said, *others)}) == 5
