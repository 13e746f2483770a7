"""What is written as truth and as results, evaluated by COCO's own code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from annotate.logs import dataset, frames
from penstock.annotate import rle
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.records import Frame, Region, Rle
from penstock.annotate.shapes.kinds import area, around
from penstock.annotate.shapes.outline import outline
from penstock.annotate.shapes.raster import rasterise

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def evaluate(folder: Path, found: Dataset, kind: str, true: Dataset | None = None) -> list[float]:
    FORMATS["coco-rle"].write(true or dataset(), folder / "truth")
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


def coins() -> Dataset:
    """Real masks, with holes and in several parts: what Otsu's threshold leaves of a picture of coins."""
    skimage = pytest.importorskip(
        "skimage", reason="the picture needs scikit-image, a development dependency"
    )
    pytest.importorskip("skimage.measure")
    picture = skimage.data.coins()
    labels = skimage.measure.label(picture > skimage.filters.threshold_otsu(picture))
    found = []
    for part in skimage.measure.regionprops(labels):
        mask = labels == part.label
        polys = outline(mask)
        shape = {"box": around(polys), "polys": polys, "rle": Rle(mask.shape, rle.encode(mask).text)}
        found.append(Region(id=str(part.label), label="coin", score=1.0, src="model", **shape))
    largest = sorted(found, key=lambda one: -area(one.polys or ()))[:90]  # evaluation takes 100
    height, width = picture.shape
    frame = Frame(
        src="s",
        name="coins.png",
        frame=0,
        pts=None,
        tb="1/1",
        t="0",
        w=width,
        h=height,
        regions=tuple(largest),
    )
    return Dataset(lambda: [frame])


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_real_masks_are_found_whole(kind: str, tmp_path: Path) -> None:
    precision, *_ = evaluate(tmp_path, coins(), kind, coins())
    assert precision == pytest.approx(1.0)


def test_real_masks_are_the_same_as_polygons(tmp_path: Path) -> None:
    data = coins()
    FORMATS["coco"].write(data, tmp_path)
    coco = COCO(tmp_path / "annotations/instances_train.json")
    (shot,) = data.shots()
    for one, region in zip(coco.anns.values(), shot.regions, strict=True):
        assert (coco.annToMask(one).astype(bool) == rasterise(region.polys, shot.frame.h, shot.frame.w)).all()
