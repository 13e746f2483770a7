"""What is written here is what other tools read.

Not a part of ``make test``, as the readers are large: ``make test-formats`` runs these in an environment of
their own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from annotate.logs import HEIGHT, OBB, RING, TWO, WIDTH, dataset, draw, frames
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.geometry import polys_of
from penstock.annotate.formats.others import TOOLS, check_with
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.records import Frame, Region
from penstock.annotate.shapes.kinds import corners
from penstock.annotate.shapes.lines import around_lines
from penstock.annotate.shapes.raster import overlap, rasterise

# The readers are from before the newest of what they stand on, and say so.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a format with its pictures, and return its folder."""

    def one(name: str) -> Path:
        data = dataset()
        FORMATS[name].write(data, tmp_path / name)
        draw(name, data, tmp_path / name)
        return tmp_path / name

    return one


def truth(name: str) -> list[Region]:
    """Return the regions of the picture called so, in order."""
    return next(
        list(shot.frame.regions) for shot in dataset().shots() if name in (shot.file_name, shot.flat_name)
    )


def mask_of(region: Region) -> np.ndarray:
    return rasterise(polys_of(region), HEIGHT, WIDTH)


ALL = Counter(region.label for frame in frames() for region in frame.regions)


class TestPycocotools:
    @pytest.mark.parametrize("name", ["coco", "coco-rle"])
    def test_masks_are_the_same(self, write: Write, name: str) -> None:
        coco = pytest.importorskip("pycocotools.coco").COCO(write(name) / "annotations/instances_train.json")
        for image in coco.loadImgs(coco.getImgIds()):
            found = coco.loadAnns(coco.getAnnIds(image["id"]))
            assert [one["attributes"]["region"] for one in found] == [
                one.id for one in truth(image["file_name"])
            ]
            for one, region in zip(found, truth(image["file_name"]), strict=True):
                exact = region.polys is not None or region.rle is not None
                iou = overlap(coco.annToMask(one).astype(bool), mask_of(region))
                assert iou == 1.0 if exact else iou > 0.8, region  # its own way with boxes of half pixels
                assert one["area"] == pytest.approx(coco.annToMask(one).sum(), rel=0 if exact else 0.2)

    def test_results_can_be_loaded(self, write: Write) -> None:
        folder = write("coco-results")
        coco = pytest.importorskip("pycocotools.coco").COCO(folder / "annotations/instances_train.json")
        found = coco.loadRes(str(folder / "results.json"))
        assert len(found.anns) == sum(ALL.values())


class TestSupervision:
    @pytest.fixture
    def sv(self) -> Any:
        return pytest.importorskip("supervision").DetectionDataset

    @pytest.mark.parametrize("name", ["coco", "coco-rle"])
    def test_coco(self, write: Write, sv: Any, name: str) -> None:
        folder = write(name)
        found = sv.from_coco(
            str(folder / "images/train"), str(folder / "annotations/instances_train.json"), force_masks=True
        )
        self.check(found, {"shapes.png": truth("shapes.png"), "walk_000005.png": truth("walk_000005.png")})
        assert len(found) == 9

    def test_yolo(self, write: Write, sv: Any) -> None:
        found = self.load_yolo(sv, write("yolo"))
        boxes = {path.rsplit("/", 1)[-1]: one.xyxy for path, one in found.annotations.items()}
        assert boxes["sub__empty.png"].shape == (0, 4)
        assert boxes["walk_000005.png"] == pytest.approx(
            np.array([region.box for region in truth("walk_000005.png")]), abs=1e-4
        )
        assert found.classes[3] == 'na: me,\n"x"'

    def test_yolo_polygons_cover_what_the_shapes_do(self, write: Write, sv: Any) -> None:
        found = self.load_yolo(sv, write("yolo-seg"), force_masks=True)
        (one,) = (one for path, one in found.annotations.items() if path.endswith("shapes.png"))
        for label, mask in (("two", TWO), ("ring", RING)):
            rows = one.class_id == found.classes.index(label)
            # It fills polygons along the centres of pixels, so edges are a pixel wider there.
            assert overlap(one.mask[rows].any(axis=0), mask) > 0.7

    def test_yolo_rotated(self, write: Write, sv: Any) -> None:
        found = self.load_yolo(sv, write("yolo-obb"), is_obb=True)
        (one,) = (one for path, one in found.annotations.items() if path.endswith("shapes.png"))
        (row,) = one.data["xyxyxyxy"][one.class_id == found.classes.index("turned")]
        assert row == pytest.approx(np.array(corners(OBB)), abs=1e-3)

    def test_voc_is_read_as_its_own_kit_does(self, write: Write, sv: Any) -> None:
        folder = write("voc")
        found = sv.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations"))
        boxes = {path.rsplit("/", 1)[-1]: one.xyxy for path, one in found.annotations.items()}
        (first, *_) = (region.box for region in truth("walk_000005.png"))
        assert boxes["walk_000005.png"][0].tolist() == list(first)

    def test_labelme(self, write: Write, sv: Any) -> None:
        folder = write("labelme")
        found = sv.from_labelme(str(folder / "images"), str(folder / "annotations"))
        (one,) = (one for path, one in found.annotations.items() if path.endswith("shapes.png"))
        assert one.xyxy == pytest.approx(np.array([region.box for region in truth("shapes.png")]), abs=1e-3)
        assert [found.classes[number] for number in one.class_id] == [
            one.label for one in truth("shapes.png")
        ]

    def load_yolo(self, sv: Any, folder: Path, **how: bool) -> Any:
        return sv.from_yolo(
            str(folder / "images/train"), str(folder / "labels/train"), str(folder / "data.yaml"), **how
        )

    def check(self, found: Any, expected: dict[str, list[Region]]) -> None:
        by_name = {path.rsplit("/", 1)[-1]: one for path, one in found.annotations.items()}
        for name, regions in expected.items():
            one = by_name[name]
            assert one.xyxy == pytest.approx(np.array([region.box for region in regions]), abs=1e-3)
            for mask, region in zip(one.mask, regions, strict=True):
                if region.rle or (region.polys and any(len(part) > 1 for part in region.polys)):
                    assert (mask == mask_of(region)).all()  # runs are exact


class TestDatumaro:
    @pytest.fixture
    def load(self) -> Callable[[Path, str], Any]:
        return pytest.importorskip("datumaro").Dataset.import_from

    @pytest.mark.parametrize(
        ("name", "kind", "place", "boxes", "polygons", "masks"),
        [
            ("datumaro", "datumaro", "", 10, 8, 3),
            ("cvat", "cvat", "", 10, 7, 3),
            ("coco", "coco", "", 21, 20, 2),
            ("coco-rle", "coco", "", 21, 10, 11),
            ("voc", "voc", "", 21, 0, 0),
            ("yolo", "yolo", "", 20, 0, 0),
            ("mot", "mot_seq", "walk", 13, 0, 0),
        ],
    )
    def test_all_is_read(
        self, write: Write, load: Any, name: str, kind: str, place: str, boxes: int, polygons: int, masks: int
    ) -> None:
        found = Counter(
            one.type.name for item in load(str(write(name) / place), kind) for one in item.annotations
        )
        assert (found["bbox"], found["polygon"], found["mask"]) == (boxes, polygons, masks)

    def test_shapes_and_attributes_are_the_same(self, write: Write, load: Any) -> None:
        data = load(str(write("datumaro")), "datumaro")
        item = data.get("shapes", "train")
        by_region = {
            one.attributes.get("region"): one for one in item.annotations if one.type.name != "points"
        }
        for region in truth("shapes.png"):
            one = by_region[region.id]
            assert one.attributes.get("score") == region.score
            assert one.attributes.get("track_id") == region.track
            if one.type.name == "bbox":
                assert one.points == pytest.approx(list(region.box), abs=0.0051)  # it rounds
            elif one.type.name == "mask":
                assert (one.image.astype(bool) == mask_of(region)).all()
            elif region.polys:
                assert one.points == [value for point in region.polys[0][0] for value in point]

    def test_masks_of_cvat_land_on_their_pixels(self, write: Write, load: Any) -> None:
        (item,) = (item for item in load(str(write("cvat")), "cvat") if item.id == "shapes")
        masks = [one.image.astype(bool) for one in item.annotations if one.type.name == "mask"]
        assert [int(mask.sum()) for mask in masks] == [RING.sum(), TWO.sum(), RING.sum()]
        assert (masks[0] == RING).all()
        assert (masks[1] == TWO).all()

    def test_tracks_of_cvat_are_shown_where_they_are(self, write: Write, load: Any) -> None:
        data = load(str(write("cvat-video") / "walk"), "cvat")
        shown = {
            item.attributes["frame"]: Counter(one.type.name for one in item.annotations) for item in data
        }
        for number in (0, 5, 10, 20, 25, 30):
            assert shown[number] == {"bbox": 1, "polygon": 1}, number
        assert shown[15] == {"bbox": 1}


class TestAsked:
    """What `penstock annotations check --with` has other tools say."""

    @pytest.mark.parametrize("tool", TOOLS)
    def test_what_is_sound_is_read(self, tmp_path: Path, tool: str) -> None:
        pytest.importorskip(TOOLS[tool].module)
        for name in TOOLS[tool].reads:
            FORMATS[name].write(dataset(), tmp_path / name)
            assert check_with(tool, name, tmp_path / name) == [], name

    @pytest.mark.parametrize(
        ("tool", "name", "file", "old", "new"),
        [
            ("datumaro", "datumaro", "annotations/train.json", '"label_id":1', '"label":1'),
            ("datumaro", "coco", "annotations/instances_train.json", '"category_id":1,', '"category_id":99,'),
            ("datumaro", "mot", "walk/gt/gt.txt", "6,1,8,", "so,1,8,"),
            ("label-studio-sdk", "label-studio", "tasks.json", '["disk"]', '["dish"]'),
            ("motmetrics", "mot", "walk/gt/gt.txt", "6,1,8,", "6,1,x,8,9,"),
        ],
    )
    def test_what_is_not_is_told(
        self, tmp_path: Path, tool: str, name: str, file: str, old: str, new: str
    ) -> None:
        pytest.importorskip(TOOLS[tool].module)
        FORMATS[name].write(dataset(), tmp_path)
        text = (tmp_path / file).read_text()
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new, 1))
        assert check_with(tool, name, tmp_path)


class TestPolylines:
    """Lines are read as lines, where they are."""

    @pytest.mark.parametrize(("name", "kind"), [("datumaro", "datumaro"), ("cvat", "cvat")])
    def test_datumaro_reads_them(self, tmp_path: Path, name: str, kind: str) -> None:
        load = pytest.importorskip("datumaro").Dataset.import_from
        data = with_line()
        FORMATS[name].write(data, tmp_path)
        draw(name, data, tmp_path)
        (item,) = load(str(tmp_path), kind)
        (one,) = (one for one in item.annotations if one.type.name == "polyline")
        assert one.points == [value for point in LINE for value in point]

    def test_label_studio_takes_them(self, tmp_path: Path) -> None:
        interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
        FORMATS["label-studio"].write(with_line(), tmp_path)
        (task,) = json.loads((tmp_path / "tasks.json").read_text())
        config = interface((tmp_path / "config.xml").read_text())
        assert [one["type"] for one in task["predictions"][0]["result"]] == ["vectorlabels"]
        assert config.validate_prediction(task["predictions"][0], return_errors=True) == []


LINE = ((4.5, 40.25), (20.0, 30.5), (60.0, 44.0))


def with_line() -> Dataset:
    region = Region(id="aa", label="kerb", box=around_lines((LINE,)), lines=(LINE,), src="model")
    still = {"src": "s", "name": "a.png", "frame": 0, "pts": None, "tb": "1/1", "t": "0"}
    return Dataset(lambda: [Frame(w=WIDTH, h=HEIGHT, regions=(region,), **still)])


class TestMotmetrics:
    def test_what_is_found_is_what_is_true(self, write: Write) -> None:
        mm = pytest.importorskip("motmetrics")
        path = str(write("mot") / "walk/gt/gt.txt")
        truth_, found = mm.io.loadtxt(path, fmt="mot16"), mm.io.loadtxt(path, fmt="mot16")
        first = truth_.loc[(1, 1)]
        assert (first["X"], first["Y"], first["Width"], first["Height"]) == (2, 5, 10, 20)
        sums = mm.MOTAccumulator()
        for frame in sorted(set(truth_.index.get_level_values(0))):
            one, other = truth_.loc[frame], found.loc[frame]
            # Its own distances need a numpy before 2.
            apart = np.array([[tuple(a) != tuple(b) for b in other.values] for a in one.values])
            distances = np.where(apart, np.nan, 0.0)
            sums.update(list(one.index), list(other.index), distances, frameid=frame)
        scores = mm.metrics.create().compute(sums, metrics=["mota", "idf1"], name="all")
        assert scores.loc["all"].tolist() == [1.0, 1.0]


class TestLabelStudio:
    def test_its_own_check_finds_nothing(self, write: Write) -> None:
        interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
        folder = write("label-studio")
        config = interface((folder / "config.xml").read_text())
        for task in json.loads((folder / "tasks.json").read_text()):
            given = task.get("predictions") or [
                {**task["annotations"][0], "model_version": "m", "score": 0.5}
            ]
            assert config.validate_prediction(given[0], return_errors=True) == []

    def test_its_own_check_finds_nothing_in_videos(self, write: Write) -> None:
        interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
        tags = pytest.importorskip("label_studio_sdk.label_interface.control_tags")
        folder = write("label-studio-video")
        config = interface((folder / "config.xml").read_text())
        (task,) = json.loads((folder / "tasks.json").read_text())
        (given,) = task["predictions"]
        for one in given["result"]:
            tags.VideoRectangleValue(**one["value"])
            assert config.get_control(one["from_name"]).tag == "VideoRectangle"
        assert config.validate_prediction(given, return_errors=True) == []

    def test_brushes_are_the_masks(self, write: Write) -> None:
        brush = pytest.importorskip("label_studio_sdk.converter.brush")
        tasks = json.loads((write("label-studio") / "tasks.json").read_text())
        results = tasks[0]["annotations"][0]["result"]
        masks = [
            np.reshape(brush.decode_rle(one["value"]["rle"]), (HEIGHT, WIDTH, 4))[..., 3] > 0
            for one in results
            if one["type"] == "brushlabels"
        ]
        assert [(mask == wanted).all() for mask, wanted in zip(masks, (RING, TWO, RING), strict=True)] == [
            True
        ] * 3


class TestCvat:
    def test_masks_can_be_decoded(self, write: Write) -> None:
        decode = pytest.importorskip("cvat_sdk.masks").decode_mask
        wanted = iter((RING, TWO, RING))
        for mask in ElementTree.parse(write("cvat") / "annotations.xml").iter("mask"):
            left, top, width, height = (int(mask.get(key, "")) for key in ("left", "top", "width", "height"))
            runs = [int(one) for one in mask.get("rle", "").split(",")]
            found = decode(
                [*runs, left, top, left + width - 1, top + height - 1], image_width=WIDTH, image_height=HEIGHT
            )
            assert (found == next(wanted)).all()
