"""Videos go out to Label Studio and CVAT, and what people change in them comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from annotate.logs import write_log
from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.corrected import append_corrections, read_corrected
from penstock.annotate.formats.registry import export
from penstock.annotate.keyframes import Reduction
from penstock.annotate.records import Frame, Region
from penstock.annotate.review.review import export_review, import_corrections

FILES = {"label-studio-video": "tasks.json", "cvat-video": "walk/annotations.xml"}
ALL = pytest.mark.parametrize("kind", FILES)


def written(kind: str, log: Path, px: float | None = None) -> Path:
    """Export the video of a log as a tool would have it back, if nothing was changed."""
    reduction = None if px is None else Reduction(px=px)
    assert export(log, [kind], log.parent, reduction=reduction).is_sound
    path = log.parent / kind / FILES[kind]
    if kind == "label-studio-video":
        path.write_text(path.read_text().replace('"predictions"', '"annotations"'))
    return path


def walk(log: Path) -> dict[int, Frame]:
    return {one.frame: one for one in read_corrected(log) if one.name == "walk.mp4"}


def by_track(frame: Frame) -> dict[str | None, Region]:
    return {one.track: one for one in frame.regions}


@ALL
@pytest.mark.parametrize("px", [None, 0.5, 3])
def test_what_nobody_changed_stays_to_the_last_digit(kind: str, px: float | None, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    before = list(read_corrected(log))
    agreement = import_corrections(log, kind, written(kind, log, px))
    assert agreement.verdicts == {"accepted": 13, "fixed": 0, "rejected": 0, "added": 0}
    assert (agreement.frames, agreement.before, agreement.unknown) == (7, 0, ())
    assert list(read_corrected(log)) == before


def test_a_thing_that_moves_evenly_has_few_key_frames(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    (task,) = json.loads(written("label-studio-video", log, 0.5).read_text())
    frames = {
        one["meta"]["track"][0]: [(key["frame"], key["enabled"]) for key in one["value"]["sequence"]]
        for one in task["annotations"][0]["result"]
    }
    assert frames == {
        "a": [(1, True), (31, False)],
        "b": [(1, True), (11, False), (21, True), (31, False)],  # away in frame 15
    }
    tree = ElementTree.parse(written("cvat-video", log, 0.5))
    keys = [[(one.get("frame"), one.get("outside")) for one in track] for track in tree.iter("track")]
    assert sorted(keys) == [
        [("0", "0"), ("10", "0"), ("11", "1"), ("20", "0"), ("30", "0")],
        [("0", "0"), ("30", "0")],
    ]


def label_studio(path: Path) -> tuple[Any, dict[str, Any]]:
    tasks = json.loads(path.read_text())
    return tasks, {one["meta"]["track"][0]: one for one in tasks[0]["annotations"][0]["result"]}


def test_corrections_of_label_studio(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    path = written("label-studio-video", log, 0.5)
    before = walk(log)
    tasks, things = label_studio(path)
    sequence = things["a"]["value"]["sequence"]
    # At frame 20 a person moves it right by eight pixels; at 25 it is gone.
    moved = {**sequence[0], "frame": 21, "time": 2.0, "x": (22 + 8) / 64 * 100, "enabled": False}
    sequence[1:] = [moved]
    things["b"]["value"]["labels"] = ["ring"]
    new = {**things["a"], "id": "made", "meta": {}}
    place = {**sequence[0], "x": 50.0, "y": 50.0, "width": 10.0, "height": 10.0}
    new["value"] = {**new["value"], "labels": ["two"]}
    new["value"]["sequence"] = [
        {**place, "frame": 11, "enabled": True},
        {**place, "frame": 21, "enabled": False},
    ]
    tasks[0]["annotations"][0]["result"].append(new)
    path.write_text(json.dumps(tasks))
    agreement = import_corrections(log, "label-studio-video", path)
    # a: 0 as it was, 5 to 20 fixed, 25 and 30 rejected; b has another label; new in 10, 15 and 20
    assert agreement.verdicts == {"accepted": 1, "fixed": 4 + 6, "rejected": 2, "added": 3}
    after = {number: by_track(frame) for number, frame in walk(log).items()}
    assert after[0]["a"] == by_track(before[0])["a"]
    assert [after[number]["a"].src for number in (5, 10, 15, 20)] == ["interpolated"] * 3 + ["human"]
    assert after[10]["a"].box == pytest.approx((12.0 + 4, 5.0, 22.0 + 4, 25.0))
    assert after[10]["a"].id == by_track(before[10])["a"].id
    assert "a" not in after[25]
    assert {after[number]["b"].label for number in after if number != 15} == {"ring"}
    assert after[0]["b"].polys == by_track(before[0])["b"].polys  # although it goes out as its box
    (name,) = {one for one in after[15] if one not in ("a", "b")}
    assert [after[n][name].src for n in (10, 15, 20)] == ["human", "interpolated", "human"]
    assert after[15][name].box == pytest.approx((32.0, 24.0, 38.4, 28.8))


def cvat(path: Path) -> tuple[Any, dict[str, Any]]:
    tree = ElementTree.parse(path)
    return tree, {
        next(one.text or "" for one in track[0] if one.get("name") == "track"): track
        for track in tree.iter("track")
    }


def test_corrections_of_cvat(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    path = written("cvat-video", log)
    before = walk(log)
    tree, tracks = cvat(path)
    shapes = {one.get("frame"): one for one in tracks["a"]}
    shapes["10"].set("xbr", "30.00")
    shapes["15"].set("keyframe", "0")  # as CVAT tells what it shows between key frames
    tracks["a"].remove(shapes["20"])
    tree.getroot().remove(tracks["b"])
    tree.write(path)
    agreement = import_corrections(log, "cvat-video", path)
    assert agreement.verdicts == {"accepted": 6, "fixed": 1, "rejected": 6, "added": 0}
    after = {number: by_track(frame) for number, frame in walk(log).items()}
    assert after[10]["a"].box == (12.0, 5.0, 30.0, 25.0)
    assert (after[10]["a"].src, after[10]["a"].id) == ("human", by_track(before[10])["a"].id)
    assert after[20] == {"a": by_track(before[20])["a"]}  # the line between 15 and 25 is where it was


def test_shapes_that_cvat_shows_are_read_too(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    path = written("cvat-video", log)
    tree, tracks = cvat(path)
    for shape in tracks["b"]:
        if shape.get("frame") in ("5", "10"):
            shape.set("keyframe", "0")
            shape.set("points", "30.00,20.00;36.00,20.00;36.00,26.00;30.00,26.00")
    tree.write(path)
    import_corrections(log, "cvat-video", path)
    found = by_track(walk(log)[10])["b"]
    assert (found.src, found.box) == ("interpolated", (30.0, 20.0, 36.0, 26.0))


@ALL
def test_frames_that_were_corrected_are_left(kind: str, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    path = written(kind, log, 0.5)
    one = walk(log)[10]
    said = Frame(**{name: getattr(one, name) for name in one.__struct_fields__ if name != "regions"})
    append_corrections(log, [said])
    path.write_text(path.read_text().replace('"person"', '"ring"'))
    agreement = import_corrections(log, kind, path)
    assert (agreement.frames, agreement.before) == (6, 1)
    assert "  1 frames were corrected before, and are left as they were then" in list(agreement.lines())
    after = walk(log)
    assert after[10].regions == ()
    assert by_track(after[5])["a"].label == "ring"


@ALL
def test_videos_go_out_whole_if_something_in_them_is_unsure(kind: str, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    (one,) = export_review(log, 0.6, [kind], tmp_path / "out").formats
    assert (one.written.frames, one.written.regions) == (7, 13)
    (none,) = export_review(log, 0.4, [kind], tmp_path / "none").formats
    assert none.written.frames == 0


SPOILED = [
    ("label-studio-video", '"sequence"', '"so"', "there is no .sequence"),
    ("label-studio-video", '"labels":["', '"labels":[],"":["', "no file of label-studio-video"),
    ("cvat-video", "<task>", "<task><frame_filter>step=2</frame_filter>", "some frames only"),
    ("cvat-video", 'xtl="', 'ltx="', "there is no .xtl"),
    ("cvat-video", "<width>64<", "<width>65<", "65 x 48 there, and 64 x 48"),
    ("cvat-video", "px=0.5", "px=so", "no tolerance"),
]


@pytest.mark.parametrize(("kind", "old", "new", "why"), SPOILED)
def test_a_broken_file_changes_nothing(kind: str, old: str, new: str, why: str, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    path = written(kind, log, 0.5)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    before = list(read_corrected(log))
    with pytest.raises(ConfigError, match=why):
        import_corrections(log, kind, path)
    assert list(read_corrected(log)) == before


def test_a_video_is_known_by_its_name_where_no_id_is_told(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    path = written("cvat-video", log)
    tree, tracks = cvat(path)
    for track in tracks.values():
        for shape in track:
            for one in list(shape):
                shape.remove(one)
    tree.write(path)
    agreement = import_corrections(log, "cvat-video", path)
    assert agreement.verdicts["accepted"] == 13  # by what they cover


def test_images_are_not_taken_for_videos(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    export(log, ["cvat"], tmp_path)
    with pytest.raises(ConfigError, match="say --from cvat"):
        import_corrections(log, "cvat-video", tmp_path / "cvat/annotations.xml")
