"""Masks as runs: what pycocotools writes and reads, and nothing that it only believes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from penstock.annotate import rle

# pycocotools' own arrays are from before numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(deadline=None)
@given(MASKS)
def test_the_text_is_that_of_coco_both_ways(mask: np.ndarray) -> None:
    theirs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    ours = rle.encode(mask)
    assert ours.as_json() == {"size": theirs["size"], "counts": theirs["counts"].decode("ascii")}
    assert (rle.decode(rle.read(theirs)) == mask).all()
    assert (coco.decode(ours.as_json()) == mask).all()
    assert ours.area == mask.sum()
    left, top, width, height = coco.toBbox(theirs)
    assert (ours.box() or (0, 0, 0, 0)) == (left, top, left + width, top + height)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**33), max_size=20))
def test_text_holds_any_runs(counts: list[int]) -> None:
    assert rle.unpack(rle.pack(counts)) == counts


@settings(deadline=None)
@given(MASKS)
def test_a_list_is_read_as_the_text_is(mask: np.ndarray) -> None:
    runs = rle.encode(mask)
    assert rle.read({"size": list(mask.shape), "counts": list(runs.counts)}) == runs


def test_large_runs_are_those_of_coco() -> None:
    mask = np.zeros((1080, 1920), dtype=bool)
    mask[3:900, 5:1900] = True
    assert rle.encode(mask).text == coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "hold 3 pixels; 2 x 2 are 4"),
        ({"size": [2, 2], "counts": [0, 5]}, "hold 5 pixels"),
        ({"size": [2, 2], "counts": [-1, 5]}, "run 0"),
        ({"size": [2, 2], "counts": [1.0, 3]}, "whole number"),
        ({"size": [2, 2], "counts": [True, 3]}, "whole number"),
        ({"size": [2, 2], "counts": "4 "}, "character 1"),
        ({"size": [2, 2], "counts": "é"}, "alphabet"),
        ({"size": [2, 2], "counts": "P"}, "inside a number"),
        ({"size": [2, 2], "counts": "oooooooooo0"}, "too long"),
        ({"size": [2, 2], "counts": "O5"}, "run 0 of a mask is -1"),
        ({"size": [2, 2], "counts": 4}, "text or a list"),
        ({"size": [2], "counts": "4"}, "two whole numbers"),
        ({"size": [2, -2], "counts": "4"}, "two whole numbers"),
        ({"counts": "4"}, "object with"),
        ("4", "object with"),
    ],
)
def test_what_is_no_mask_is_refused(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rle.read(value)


def test_a_mask_has_rows_and_columns() -> None:
    with pytest.raises(ValueError, match="3 dimensions"):
        rle.encode(np.zeros((2, 2, 3), dtype=bool))


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        runs = rle.read({"size": [3, 4], "counts": text})
    except ValueError:
        return
    assert rle.decode(runs).shape == (3, 4)
