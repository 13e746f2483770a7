"""Frames go out to be looked at, and come back; what people say stays, whatever is run again."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from annotate.logs import RING, dataset, shapes, write_log
from penstock.annotate import rle
from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.base import Format
from penstock.annotate.formats.brush import pack_mask
from penstock.annotate.formats.corrected import CORRECTIONS, append_corrections, read_corrected
from penstock.annotate.formats.registry import FORMATS, dataset_of
from penstock.annotate.records import Frame, Region, Tag
from penstock.annotate.review.review import export_review, import_corrections, worth_a_look
from penstock.annotate.shapes.kinds import area

FILES = {"label-studio": "tasks.json", "cvat": "annotations.xml", "coco": "annotations/instances_train.json"}
ALL = pytest.mark.parametrize("kind", FILES)


def written(kind: str, folder: Path) -> Path:
    """Export all of a log as a tool would have it back: with the annotations somebody has accepted."""
    one: Format = FORMATS[kind]
    one.write(dataset(), folder / kind)
    path = folder / kind / FILES[kind]
    if kind == "label-studio":
        tasks = json.loads(path.read_text())
        for task in tasks:
            task.setdefault("annotations", task.pop("predictions", []))
        path.write_text(json.dumps(tasks))
    return path


def frame(log: Path, name: str = "shapes.png", number: int = 0) -> Frame:
    return next(one for one in read_corrected(log) if (one.name, one.frame) == (name, number))


@ALL
def test_what_nobody_changed_stays_to_the_last_digit(kind: str, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    before = list(read_corrected(log))
    agreement = import_corrections(log, kind, written(kind, tmp_path))
    assert agreement.verdicts == {"accepted": 21, "fixed": 0, "rejected": 0, "added": 0}
    assert agreement.frames == 9
    assert agreement.unknown == ()
    assert agreement.iou["ring"] == 1.0
    assert list(read_corrected(log)) == before
    assert len((tmp_path / CORRECTIONS).read_bytes().splitlines()) == 9


def test_corrections_of_label_studio(tmp_path: Path) -> None:
    log, path = write_log(tmp_path), written("label-studio", tmp_path)
    tasks = json.loads(path.read_text())
    results = tasks[0]["annotations"][0]["result"]
    by_id = {one["id"]: one for one in results}
    thing, disk, ring, two, mask, turned, whole, person = (one.id for one in shapes())
    by_id[thing]["value"]["width"] += 5  # percent
    by_id[disk]["value"]["polygonlabels"] = ["ring"]
    by_id[mask]["value"]["rle"] = list(pack_mask(np.roll(RING, 3, axis=1)))
    by_id[turned]["value"]["rotation"] = 300.0
    by_id[f"{person}-0"]["value"]["x"] = 50.0
    new = {**by_id[thing], "id": "made", "value": {**by_id[thing]["value"], "width": 2.0}}
    kept = [one for one in results if one["id"] not in (two, whole) and one["type"] != "choices"]
    tasks[0]["annotations"] = [
        {"result": [], "was_cancelled": True},
        {"result": [*kept, new]},
        {"result": [], "was_cancelled": True},
    ]
    path.write_text(json.dumps([tasks[0], {**tasks[1], "annotations": []}]))
    agreement = import_corrections(log, "label-studio", path)
    assert agreement.frames == 1
    assert agreement.verdicts == {"accepted": 1, "fixed": 5, "rejected": 2, "added": 1}
    assert agreement.labels["two"] == {"accepted": 0, "fixed": 0, "rejected": 1, "added": 0}
    assert 0.7 < agreement.iou["thing"] < 1.0
    corrected = frame(log)
    after = {one.id: one for one in corrected.regions}
    assert corrected.labels == ()
    assert after[ring] == shapes()[2]  # nobody touched it
    assert after[thing].box == pytest.approx((1.5, 2.25, 33.2, 40.125))
    assert (after[thing].src, after[thing].score, after[thing].text) == ("human", None, "a <b> & 'c'")
    assert (after[disk].label, after[disk].track) == ("ring", "t9")
    assert (
        rle.decode(rle.read({"size": [48, 64], "counts": after[mask].rle.counts})) == np.roll(RING, 3, axis=1)
    ).all()
    assert after[turned].obb[4] == -60.0
    assert after[person].kp == ((32.0, 6.0, 2), (10.5, 7.0, 2))
    (added,) = [one for one in corrected.regions if one.id not in {each.id for each in shapes()}]
    assert (added.src, added.label) == ("human", "thing")


def test_corrections_of_cvat(tmp_path: Path) -> None:
    log, path = write_log(tmp_path), written("cvat", tmp_path)
    tree = ElementTree.parse(path)
    image = tree.getroot().find("image")
    assert image is not None
    box, polygon, mask = image.find("box"), image.find("polygon"), image.find("mask")
    assert box is not None
    assert polygon is not None
    assert mask is not None
    box.set("xbr", "31.00")
    image.remove(polygon)
    mask.set("left", str(int(mask.get("left", "0")) + 1))
    new = ElementTree.SubElement(
        image, "box", label="disk", xtl="1", ytl="1", xbr="5", ybr="5", source="manual"
    )
    assert new is not None
    (ElementTree.SubElement(image, "tag", label="empty"))
    tree.write(path)
    agreement = import_corrections(log, "cvat", path)
    assert agreement.verdicts == {"accepted": 18, "fixed": 2, "rejected": 1, "added": 1}
    regions = {one.id: one for one in frame(log).regions}
    assert regions[shapes()[0].id].box == (1.5, 2.25, 31.0, 40.12)
    assert shapes()[1].id not in regions
    assert frame(log).labels == (Tag("indoor", 0.75), Tag("empty"), Tag("empty"))


def test_corrections_of_a_tool_that_drops_ids_and_names_folders(tmp_path: Path) -> None:
    log, path = write_log(tmp_path), written("coco", tmp_path)
    document = json.loads(path.read_text())
    for one in document["annotations"]:
        del one["attributes"]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] != 3]
    document["annotations"][0]["bbox"][0] += 4
    document["annotations"][0]["segmentation"] = []
    path.write_text(json.dumps(document))
    agreement = import_corrections(log, "coco", path)
    assert agreement.verdicts == {"accepted": 18, "fixed": 1, "rejected": 2, "added": 0}
    assert frame(log, "walk.mp4", 0).regions == ()
    assert frame(log).regions[0].box == (5.5, 2.25, 34.0, 40.125)
    assert frame(log).labels == (Tag("indoor", 0.75), Tag("empty"))  # COCO cannot say


def test_only_what_is_less_sure_goes_out_and_only_once(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    report = export_review(log, 0.3, ["label-studio", "coco"], tmp_path / "out")
    assert report.is_sound
    assert [one.written.frames for one in report.formats] == [1, 1]
    tasks = json.loads((tmp_path / "out/label-studio/tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["shapes.png"]
    assert [shot.file_name for shot in worth_a_look(log, 0.6).shots()] == [
        "shapes.png",
        *(f"walk_{number:06d}.png" for number in range(0, 31, 5)),
    ]
    import_corrections(log, "label-studio", tmp_path / "out/label-studio/tasks.json")
    assert [shot.file_name for shot in worth_a_look(log, 0.3).shots()] == []


def test_a_run_again_leaves_corrections(tmp_path: Path) -> None:
    log, path = write_log(tmp_path), written("cvat", tmp_path)
    tree = ElementTree.parse(path)
    for image in tree.getroot().iterfind("image"):
        for shape in list(image):
            image.remove(shape)
    tree.write(path)
    import_corrections(log, "cvat", path)
    write_log(tmp_path)
    assert sum(len(one.regions) for one in read_corrected(log)) == 0
    assert len(dataset_of(log).survey.labels) == 0


def test_corrections_of_another_file_of_that_name_do_not_count(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    before = frame(log)
    import_corrections(log, "coco", written("coco", tmp_path))
    log.write_bytes(log.read_bytes().replace(b"sha256:aa", b"sha256:dd"))
    assert frame(log).src == "sha256:dd"
    assert frame(log).regions == before.regions


def test_half_a_line_of_corrections_is_cut_off(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    one = Frame(src="sha256:bb", name="sub/empty.png", frame=0, pts=None, tb="1/1", t="0", w=64, h=48)
    region = Region(id="ab", label="x", box=(0.0, 0.0, 1.0, 1.0), src="human")
    two = Frame(
        src="sha256:bb",
        name="sub/empty.png",
        frame=0,
        pts=None,
        tb="1/1",
        t="0",
        w=64,
        h=48,
        regions=(region,),
    )
    append_corrections(log, [one])
    with (tmp_path / CORRECTIONS).open("ab") as file:
        file.write(b'{"v":1,"src"')
    assert frame(log, "sub/empty.png").regions == ()
    append_corrections(log, [two])
    assert frame(log, "sub/empty.png") == two


def test_lines_that_cross_are_repaired(tmp_path: Path) -> None:
    log, path = write_log(tmp_path), written("cvat", tmp_path)
    tree = ElementTree.parse(path)
    image = tree.getroot().find("image")
    assert image is not None
    bow = "10,10;20,20;20,10;10,20"
    for _ in range(2):
        ElementTree.SubElement(image, "polygon", label="disk", points=bow)
    tree.write(path)
    assert import_corrections(log, "cvat", path).verdicts["added"] == 2
    one, two = frame(log).regions[-2:]
    assert area(one.polys or ()) == 50
    assert one.id != two.id
    ElementTree.SubElement(image, "polygon", label="disk", points="1,1;2,2;1,1")
    tree.write(path)
    with pytest.raises(ConfigError, match=r"shapes.png: a polygon of disk has no area"):
        import_corrections(log, "cvat", path)


def test_a_broken_file_is_refused_wherever_it_is_broken(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    for kind in FILES:
        path = written(kind, tmp_path)
        text = path.read_bytes()
        changes = np.random.default_rng(1)
        for place in changes.integers(0, len(text), 60):
            other = bytes([changes.integers(32, 127)])
            path.write_bytes(text[:place] + other + text[place + 1 :])
            with suppress(ConfigError):
                import_corrections(log, kind, path)


BROKEN: list[tuple[str, Any, str]] = [
    ("label-studio", "[]{", "is no JSON"),
    ("label-studio", '[{"data":{"image":"shapes.png"},"annotations":[{}]}]', "there is no 'result'"),
    ("cvat", "<a>", "is no XML"),
    ("cvat", "<a/>", "annotations of CVAT"),
    ("coco", "[]", "no file of coco"),
    (
        "coco",
        '{"categories":[],"annotations":[],"images":[{"id":1,"file_name":"a","width":1,"height":1}]}',
        "no picture of",
    ),
    (
        "coco",
        '{"categories":[],"annotations":[],"images":[{"id":1,"file_name":"shapes.png","width":1,"height":1}]}',
        "1 x 1 there",
    ),
    ("voc", "", "cannot be read from voc; they can from label-studio, label-studio-video, cvat, "),
]


@pytest.mark.parametrize(("kind", "text", "why"), BROKEN)
def test_a_file_that_is_none_changes_nothing(kind: str, text: str, why: str, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    (tmp_path / "given").write_text(text)
    with pytest.raises(ConfigError, match=why):
        import_corrections(log, kind, tmp_path / "given")
    assert not (tmp_path / CORRECTIONS).exists()


def test_the_report_is_told_in_words(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    lines = list(import_corrections(log, "coco", written("coco", tmp_path)).lines())
    assert lines[0] == "9 frames: 21 accepted, 0 fixed, 0 rejected, 0 added"
    assert "  turned: 1 accepted, 0 fixed, 0 rejected, 0 added, IoU 1.000" in lines
