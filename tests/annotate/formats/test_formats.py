"""Every format: written, checked, the same every time, and what it cannot say is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotate.logs import dataset, write_log
from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.base import LOSSES
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS, dataset_of, export
from penstock.annotate.log import LOG
from penstock.annotate.manifests import MANIFEST
from penstock.annotate.records import Frame, Region, Source

ALL = pytest.mark.parametrize("name", FORMATS)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@ALL
def test_what_is_written_is_sound_and_always_the_same(name: str, tmp_path: Path) -> None:
    (exported,) = export(write_log(tmp_path), [name], tmp_path / "one").formats
    assert exported.faults == []
    assert set(exported.written.files) == set(contents(exported.folder))
    FORMATS[name].write(dataset_of(tmp_path / LOG), tmp_path / "two")
    assert contents(tmp_path / "two") == contents(exported.folder)
    assert contents(exported.folder)


@ALL
def test_an_empty_log_can_be_written(name: str, tmp_path: Path) -> None:
    written = FORMATS[name].write(Dataset(list), tmp_path)
    assert FORMATS[name].check(tmp_path) == []
    assert (written.frames, written.regions, written.losses) == (0, 0, {})


@ALL
def test_what_is_missing_is_a_fault(name: str, tmp_path: Path) -> None:
    written = FORMATS[name].write(dataset(), tmp_path)
    if name in ("webvtt", "cvat-video", "mot", "labelme"):
        return  # files or folders for each picture or video; none is none
    (tmp_path / written.files[0 if name == "supervisely" else -1]).unlink()
    assert FORMATS[name].check(tmp_path)


@ALL
def test_what_cannot_be_said_is_counted(name: str, tmp_path: Path) -> None:
    one = FORMATS[name]
    written = one.write(dataset(), tmp_path)
    total = {"score": 14, "track": 14, "tags": 2, "text": 1, "attributes": 1, "keypoints": 1, "rotated": 1}
    video = {"score": 7, "track": 13}
    there = video if one.video else {**total, "track": 14, "origin": 2}
    for what, count in there.items():
        expected = 0 if what in one.says else count
        assert written.losses.get(LOSSES[what], 0) == expected, what
    assert (LOSSES["holes"] in written.losses) == (
        name == "yolo-seg"
    )  # elsewhere there are none, or no shapes
    assert written.frames == (7 if one.video else 9)
    assert written.regions == (13 if one.video else 21)
    assert written.losses.get(LOSSES["stills"], 0) == (2 if one.video else 0)


@ALL
def test_regions_without_an_area_are_counted(name: str, tmp_path: Path) -> None:
    thin = [Region(id=f"a{n}", label="thing", box=(5.0, 5.0, 5.0, 9.0), src="model") for n in range(2)]
    away = Region(id="cd", label="thing", box=(50.0, 5.0, 60.0, 9.0), src="model")
    moments = [
        Frame(
            src="s",
            name="a.mp4",
            frame=n,
            pts=n,
            tb="1/1",
            t=str(n),
            w=32,
            h=24,
            regions=(thin[n], away)[: n + 1],
        )
        for n in range(2)
    ]
    one = FORMATS[name]
    written = one.write(Dataset(lambda: moments), tmp_path)
    assert one.check(tmp_path) == []
    assert written.losses.get(LOSSES["thin"], 0) == (0 if one.thin else 3)


def test_names_of_pictures_are_their_own() -> None:
    still = {"pts": None, "tb": "1/1", "w": 4, "h": 4, "src": "s"}
    names = ["a.png", "a.jpg", "a_000001.png", "../../etc/x:y.png", "a.mp4", "b.mp4", "b.mkv"]
    moments = [
        Frame(name=name, frame=n, t=str(n), **still)
        for name in names
        for n in range(1 if name.endswith("g") else 2)
    ]
    shots = list(Dataset(lambda: moments).shots())
    assert [shot.file_name for shot in shots] == [
        "a.png",
        "a.jpg",
        "a_000001.png",
        "up/up/etc/x_y.png",
        *("a_mp4_000000.png", "a_mp4_000001.png"),
        *("b_000000.png", "b_000001.png"),
        *("b_mkv_000000.png", "b_mkv_000001.png"),
    ]
    assert [shot.stem for shot in shots][:4] == ["a", "a_jpg", "a_000001", "up/up/etc/x_y"]
    assert [shot.flat_name for shot in shots][:4] == [
        "a.png",
        "a_jpg.jpg",
        "a_000001.png",
        "up__up__etc__x_y.png",
    ]
    assert len({shot.flat for shot in shots}) == len({shot.stem for shot in shots}) == len(shots)


def test_a_file_for_pages_with_one_page_is_a_still() -> None:
    one = Frame(src="s", name="a.webp", frame=0, pts=0, tb="1/1000", t="0", w=4, h=4)
    two = Frame(src="s", name="b.gif", frame=0, pts=0, tb="1/1000", t="0", w=4, h=4)
    kinds = [
        Source(name=name, digest="s", kind="pages", bytes=1, frames=count)
        for name, count in (("a.webp", 1), ("b.gif", 7))
    ]
    assert [shot.file_name for shot in Dataset(lambda: [one, two], kinds).shots()] == [
        "a.webp",
        "b_000000.png",
    ]


def test_a_format_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format kitti; there are coco, "):
        export(tmp_path / LOG, ["coco", "kitti"], tmp_path)


def test_a_log_without_a_manifest_and_with_half_a_line(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    (tmp_path / MANIFEST).unlink()
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1])[:-20])
    report = export(log, ["csv", "webvtt"], tmp_path / "out")
    assert [one.written.frames for one in report.formats] == [8, 6]
    assert report.is_sound


def test_the_report_says_what_was_lost(tmp_path: Path) -> None:
    lines = "\n".join(export(write_log(tmp_path), ["voc"], tmp_path / "out").lines())
    assert "voc: 9 frames, 21 regions in " in lines
    assert "14 scores left out" in lines
    assert "wrong" not in lines
