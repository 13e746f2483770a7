"""What is written as truth and as results, evaluated by COCO's own code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from annotate.logs import dataset, frames
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.records import Frame

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def evaluate(folder: Path, found: Dataset, kind: str) -> list[float]:
    FORMATS["coco-rle"].write(dataset(), folder / "truth")
    FORMATS["coco-results"].write(found, folder / "found")
    truth = COCO(folder / "truth/annotations/instances_train.json")
    results = truth.loadRes(str(folder / "found/results.json"))
    evaluation = COCOeval(truth, results, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return list(evaluation.stats)


def moved() -> Iterator[Frame]:
    """The frames, their boxes away from where they are."""
    for frame in frames():
        boxes = [
            msgspec.structs.replace(one, box=(0.0, 0.0, 1.0, 1.0), polys=None, rle=None, obb=None)
            for one in frame.regions
        ]
        yield msgspec.structs.replace(frame, regions=tuple(boxes))


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_what_is_true_is_found(kind: str, tmp_path: Path) -> None:
    precision, *_ = evaluate(tmp_path, dataset(), kind)
    assert precision == pytest.approx(1.0)


def test_what_is_elsewhere_is_not(tmp_path: Path) -> None:
    precision, *_ = evaluate(tmp_path, Dataset(moved, dataset().sources.values()), "bbox")
    assert precision < 0.01
