"""Files that were good, spoiled in one way: our check finds it, whatever other readers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from annotate.logs import dataset
from penstock.annotate.formats.registry import FORMATS

COCO: dict[str, tuple[Callable[[Any], object], str]] = {
    "an id twice": (lambda d: d["annotations"][1].update(id=1), "another annotation has the id 1"),
    "an unknown category": (lambda d: d["annotations"][0].update(category_id=99), "no category 99"),
    "an unknown image": (lambda d: d["annotations"][0].update(image_id=99), "no image 99"),
    "a negative width": (lambda d: d["annotations"][0]["bbox"].__setitem__(2, -4), "no area"),
    "a box of NaN": (lambda d: d["annotations"][0]["bbox"].__setitem__(0, float("nan")), "it is no JSON"),
    "a box outside": (
        lambda d: d["annotations"][0]["bbox"].__setitem__(2, 99),
        "outside the image of 64 x 48",
    ),
    "a mask of another size": (lambda d: mask(d).update(size=[64, 48]), "its mask is 48 x 64"),
    "runs that do not fill": (lambda d: mask(d).update(counts=[5, 5]), "hold 10 pixels; 48 x 64 are 3072"),
    "a polygon of two points": (lambda d: polygon(d)[0].__delitem__(slice(4, None)), "six numbers or more"),
    "no segmentation": (lambda d: d["annotations"][0].pop("segmentation"), "a mask or polygons"),
    "an empty segmentation": (lambda d: d["annotations"][0].update(segmentation=[]), "one at least"),
    "no iscrowd": (lambda d: d["annotations"][0].pop("iscrowd"), "iscrowd should be 0 or 1"),
    "ids of text": (lambda d: d["annotations"][0].update(id="1"), "its id '1' should be a whole number"),
    # Beside the table.
    "a category 0": (lambda d: d["categories"][0].update(id=0), "whole number from 1 on"),
    "a name twice": (lambda d: d["images"][1].update(file_name="shapes.png"), "stands twice"),
    "an image without a size": (lambda d: d["images"][0].pop("width"), "its width and height"),
    "an area of 0": (lambda d: d["annotations"][0].update(area=0), "above 0"),
    "a polygon outside": (lambda d: polygon(d)[0].__setitem__(0, -7), "outside"),
    "odd numbers": (lambda d: polygon(d)[0].pop(), "by twos"),
    "an empty mask": (lambda d: mask(d).update(counts=[48 * 64]), "its mask is empty"),
    "too few keypoints": (lambda d: pose(d)["keypoints"].pop(), "9 numbers"),
    "keypoints not counted": (lambda d: pose(d).update(num_keypoints=3), "how many keypoints"),
    "a visibility of 3": (lambda d: pose(d)["keypoints"].__setitem__(2, 3), "0, 1 or 2"),
    "no list": (lambda d: d.update(annotations={}), "of another form"),
}


def mask(document: Any) -> Any:
    return next(
        one["segmentation"] for one in document["annotations"] if isinstance(one["segmentation"], dict)
    )


def polygon(document: Any) -> Any:
    return next(
        one["segmentation"] for one in document["annotations"] if isinstance(one["segmentation"], list)
    )


def pose(document: Any) -> Any:
    return next(one for one in document["annotations"] if "keypoints" in one)


def said(name: str, folder: Path) -> str:
    return "\n".join(map(str, FORMATS[name].check(folder)))


@pytest.mark.parametrize("what", COCO)
def test_coco(what: str, tmp_path: Path) -> None:
    FORMATS["coco"].write(dataset(), tmp_path)
    path = tmp_path / "annotations/instances_train.json"
    document = json.loads(path.read_text())
    spoil, fault = COCO[what]
    spoil(document)
    path.write_text(json.dumps(document))
    assert fault in said("coco", tmp_path)


def test_results_without_a_score_in_range(tmp_path: Path) -> None:
    FORMATS["coco-results"].write(dataset(), tmp_path)
    path = tmp_path / "results.json"
    path.write_text(path.read_text().replace('"score":0.9375', '"score":1.5'))
    assert "its score 1.5 should be from 0 to 1" in said("coco-results", tmp_path)


# By format: which file, what in it, and what it becomes; and what is said then.
LINES: list[tuple[str, str, str, str, str]] = [
    ("yolo", "labels/train/walk_000005.txt", "4 ", "9 ", "the class '9' should be a whole number below 9"),
    ("yolo", "labels/train/walk_000005.txt", "4 ", "1.0 ", "the class '1.0'"),
    ("yolo", "labels/train/walk_000005.txt", "0.18750000", "nan", "finite numbers"),
    ("yolo", "labels/train/walk_000005.txt", "0.18750000", "-0.1", "outside the image"),
    ("yolo", "labels/train/walk_000005.txt", "0.18750000", "1.2", "outside the image"),
    ("yolo", "labels/train/walk_000005.txt", "0.41666667\n", "0.0\n", "no area"),
    ("yolo", "labels/train/walk_000005.txt", "0.41666667\n", "0.41666667 0.5\n", "there are 5"),
    (
        "yolo",
        "labels/train/walk_000005.txt",
        "\n",
        "\n1 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n",
        "another line says",
    ),
    ("yolo", "labels/train/walk_000005.txt", "\n", "\n1 0.5 0.5 0.5 0.5\n", "as many rows as the labels"),
    ("yolo", "data.yaml", "1:", "8:", "number the classes from 0 on"),
    ("yolo", "data.yaml", "names:", "names: [", "expected"),
    ("yolo-seg", "labels/train/walk_000015.txt", " 0.52083333\n", "\n", "by twos; there are 7"),
    ("yolo-seg", "labels/train/walk_000015.txt", "\n", "\n1 0.5 0.5 0.5 0.5\n", "six numbers or more"),
    ("yolo-obb", "labels/train/walk_000015.txt", " 0.52083333\n", "\n", "there should be 8 numbers"),
    ("yolo-pose", "labels/train/shapes.txt", " 2 ", " 3 ", "0, 1 or 2"),
    ("yolo-pose", "data.yaml", "- 3\n- 3", "- 3\n- 2", "kpt_shape"),
    ("voc", "Annotations/walk_000005.xml", "<xmin>8<", "<xmin>0<", "counted from 1"),
    ("voc", "Annotations/walk_000005.xml", "<xmin>8<", "<xmin>8.5<", "whole numbers"),
    ("voc", "Annotations/walk_000005.xml", "<xmax>17<", "<xmax>65<", "lie in the image"),
    ("voc", "Annotations/walk_000005.xml", "<name>person<", "<name>cat<", "no label 'cat'"),
    ("voc", "Annotations/walk_000005.xml", "<width>64<", "<width>0<", "width, height and depth"),
    ("voc", "Annotations/walk_000005.xml", "walk_000005.png", "other.png", "not the file's"),
    ("voc", "Annotations/walk_000005.xml", "<difficult>0<", "<difficult>2<", "0 or 1"),
    ("voc", "ImageSets/Main/train.txt", "walk_000000", "walk_000005", "stands twice"),
    ("cvat", "annotations.xml", 'label="disk"', 'label="dish"', "no label 'dish'"),
    ("cvat", "annotations.xml", 'name="score">0.5', 'name="score">1.5', "from 0 to 1"),
    ("cvat", "annotations.xml", '"color">', '"colour">', "no attribute 'colour'"),
    ("cvat", "annotations.xml", 'xtl="1.50"', 'xtl="-1.50"', "outside the image"),
    ("cvat", "annotations.xml", 'xtl="1.50"', 'xtl="nan"', "finite numbers"),
    ("cvat", "annotations.xml", 'image id="1"', 'image id="0"', "should be its own"),
    ("cvat", "annotations.xml", 'rle="', 'rle="7, ', "its runs hold"),
    ("cvat", "annotations.xml", 'left="', 'left="6', "outside the image"),
    ("cvat", "annotations.xml", 'width="64"', 'width="0"', "from 1 on"),
    (
        "cvat",
        "annotations.xml",
        'polygon label="disk" source="auto" occluded="0" points="',
        'polygon label="disk" points="a,b;',
        "points or more",
    ),
    ("cvat-video", "walk/annotations.xml", 'keyframe="1"', "", "which the importer drops"),
    ("cvat-video", "walk/annotations.xml", 'outside="0"', "", "outside and occluded"),
    ("cvat-video", "walk/annotations.xml", 'frame="5"', 'frame="0"', "frames should rise"),
    ("cvat-video", "walk/annotations.xml", "<size>31<", "<size>12<", "below 12"),
    ("cvat-video", "walk/annotations.xml", "<size>31<", "<size>40<", "it does not end"),
    ("cvat-video", "walk/annotations.xml", "</track>", '</track><track id="9" label="disk"/>', "empty"),
    ("cvat-video", "walk/annotations.xml", "interpolation", "annotation", "mode of the task"),
    ("label-studio", "tasks.json", '"x":', '"x":9', "all should be from 0 to 100"),
    (
        "label-studio",
        "tasks.json",
        '"original_height":48,"image_rotation":0,"score":1',
        '"original_height":47,"score":1',
        "not of its image's size",
    ),
    ("label-studio", "tasks.json", '"original_width":64', '"original_width":null', "original_width"),
    ("label-studio", "tasks.json", '["disk"]', '["dish"]', "not all in the config"),
    ("label-studio", "tasks.json", '"score":0.125', '"score":1.25', "from 0 to 1"),
    ("label-studio", "tasks.json", '"from_name":"box"', '"from_name":"mask"', "no control 'mask' for"),
    ("label-studio", "tasks.json", '"rle":[0,', '"rle":[1,', "cannot be read"),
    ("label-studio", "tasks.json", '"points":[[', '"points":[[-1,1],[', "it reaches outside"),
    ("label-studio", "config.xml", "<Image", "<Text", "should show an image"),
    ("label-studio-video", "tasks.json", '"frame":6', '"frame":1', "frames should rise"),
    ("label-studio-video", "tasks.json", '"frame":31', '"frame":32', "frames should rise, from 1 to 31"),
    ("label-studio-video", "tasks.json", '"x":', '"x":9', "outside the image"),
    ("label-studio-video", "tasks.json", '"width":', '"width":-', "a width and a height above 0"),
    ("label-studio-video", "tasks.json", '"enabled":true', '"enabled":1', "true or false"),
    ("label-studio-video", "tasks.json", '["person"]', '["parson"]', "not all in the config"),
    ("label-studio-video", "tasks.json", '"framesCount":31', '"framesCount":0', "framesCount should be"),
    ("label-studio-video", "tasks.json", '"videorectangle"', '"rectangle"', "should be a videorectangle"),
    ("label-studio-video", "tasks.json", '"video":"walk.mp4"', '"film":"walk.mp4"', "data with a video"),
    ("label-studio-video", "config.xml", "<VideoRectangle", "<Rectangle", "should show a video"),
    ("datumaro", "annotations/train.json", '"label_id":1', '"label_id":99', "no label 99"),
    ("datumaro", "annotations/train.json", '"id":"walk_000000"', '"id":"walk_000005"', "its own"),
    ("datumaro", "annotations/train.json", '"bbox":[1.5', '"bbox":[-7', "outside"),
    ("datumaro", "annotations/train.json", '"size":[48,64]}}', '"size":[0,64]}}', "have a size"),
    ("datumaro", "annotations/train.json", '"counts":"', '"counts":"1', "pixels"),
    ("datumaro", "annotations/train.json", '"visibility":[2', '"visibility":[2,2', "visibility"),
    ("mot", "walk/gt/gt.txt", "6,1,8,", "6,1,0,", "counted from 1"),
    ("mot", "walk/gt/gt.txt", "6,1,8,", "0,1,8,", "no frame 0"),
    ("mot", "walk/gt/gt.txt", "6,1,8,", "6,2,8,", "stands twice"),
    ("mot", "walk/gt/gt.txt", "6,1,8,", "6,0,8,", "from 1 on"),
    ("mot", "walk/gt/gt.txt", "6,1,8,", "6,1,nan,", "9 finite numbers"),
    ("mot", "walk/det/det.txt", "6,-1,8,6,10,", "6,-1,8,6,-10,", "no area"),
    ("mot", "walk/seqinfo.ini", "imExt", "ext", "it should have name"),
    ("webvtt", "walk.vtt", "WEBVTT", "WEBVT", "begin with WEBVTT"),
    ("webvtt", "walk.vtt", "00:00:00.500 -->", "00:00:02.500 -->", "end after it begins"),
    ("webvtt", "walk.vtt", '{"v":1', "{v:1", "should be JSON"),
    ("webvtt", "walk.vtt", '{"v":1', '{"w":"-->"', "without an arrow"),
    ("labelme", "annotations/shapes.json", '"imageWidth": 64', '"imageWidth": 0', "imageWidth and"),
    ("labelme", "annotations/shapes.json", "../images/shapes.png", "../images/a.png", "not that of the file"),
    ("labelme", "annotations/shapes.json", '"label": "disk"', '"label": ""', "no label"),
    ("labelme", "annotations/shapes.json", "1.5,", "-7,", "outside"),
    ("labelme", "annotations/shapes.json", "1.5,", "40,", "no area"),
    ("labelme", "annotations/shapes.json", '"group_id": 3', '"group_id": "3"', "group_id"),
    ("labelme", "annotations/shapes.json", '"rectangle"', '"circle"', "none of the shapes"),
    ("supervisely", "meta.json", '"title": "disk"', '"title": "dish"', "no class 'disk'"),
    ("supervisely", "meta.json", '"name": "track"', '"name": "way"', "none of the project's"),
    ("supervisely", "dataset/ann/shapes.png.json", '"width": 64', '"width": 40', "outside"),
    ("supervisely", "dataset/ann/shapes.png.json", '"width": 64', '"width": 0', "width and height"),
    ("supervisely", "dataset/ann/shapes.png.json", '"data": "', '"data": "?', "cannot be read"),
    ("supervisely", "dataset/ann/shapes.png.json", '"rectangle"', '"polygon"', "none of the shapes"),
    ("csv", "regions.csv", "48,region,", "48,thing,", "region or label"),
    ("csv", "regions.csv", "1.5,2.25", "99,2.25", "no box"),
    ("csv", "regions.csv", "0.9375", "much", "a number"),
    ("csv", "regions.csv", "file,frame", "frame,file", "columns should be"),
]


@pytest.mark.parametrize(("name", "file", "old", "new", "fault"), LINES)
def test_others(name: str, file: str, old: str, new: str, fault: str, tmp_path: Path) -> None:
    FORMATS[name].write(dataset(), tmp_path)
    path = tmp_path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert fault in said(name, tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_check_survives_whatever_it_is_given(name: str, tmp_path: Path) -> None:
    written = FORMATS[name].write(dataset(), tmp_path)
    chance = Random(name)
    pieces = (b"null", b"-1", b"[]", b"{}", b"1e999", b'"', b"9999999999999", b"<", b"\xff", b"")
    for _ in range(30):
        path = tmp_path / chance.choice(written.files)
        text = path.read_bytes()
        at = chance.randrange(len(text) + 1)
        path.write_bytes(text[:at] + chance.choice(pieces) + text[at + chance.randrange(4) :])
        FORMATS[name].check(tmp_path)
        path.write_bytes(text)
    assert FORMATS[name].check(tmp_path) == []
