"""`penstock annotations`: exports, looks, and the way to people and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from annotate.logs import write_log
from cli.processes import Penstock
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.log import LOG
from penstock.annotate.media.messages import Limits
from penstock.annotate.media.sources import find
from penstock.annotate.records import Frame, decode, encode
from penstock.cli.annotations import verbs
from penstock.cli.exits import Exit


def run(*arguments: object) -> Result:
    return CliRunner().invoke(verbs, [str(one) for one in arguments])


def test_all_formats_are_written_and_checked(tmp_path: Path) -> None:
    write_log(tmp_path)
    done = run("export", tmp_path, "--format", ",".join(FORMATS))
    assert done.exit_code == 0, done.output
    assert f"voc: 9 frames, 21 regions in {tmp_path / 'exports' / 'voc'}" in done.output
    assert "14 scores left out" in done.output
    assert run("check", tmp_path / "exports").output.splitlines() == [f"{name}: sound" for name in FORMATS]
    path = tmp_path / "exports/yolo/data.yaml"
    path.write_text("names: []")
    checked = run("check", tmp_path / "exports")
    assert checked.exit_code == Exit.FAILED
    assert "yolo: 1 faults\n  data.yaml: `names` should number the classes from 0 on" in checked.output


def test_frames_go_to_people_and_come_back(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    assert run("review", log, "--below", "0.3", "--format", "coco").exit_code == 0
    corrected = tmp_path / "review/coco/annotations/instances_train.json"
    done = run("correct", tmp_path, corrected, "--from", "coco")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("1 frames: 8 accepted, 0 fixed, 0 rejected, 0 added\n")


def test_videos_go_with_few_key_frames_and_come_back(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    words = ("--below", "0.6", "--format", "label-studio-video", "--reduce", "px=0.5")
    sent = run("review", log, *words)
    assert sent.exit_code == 0, sent.output
    assert "7 shapes left to interpolation (px=0.5)" in sent.output
    path = tmp_path / "review/label-studio-video/tasks.json"
    path.write_text(path.read_text().replace('"predictions"', '"annotations"'))
    done = run("correct", tmp_path, path, "--from", "label-studio-video")
    assert done.output.startswith("7 frames: 13 accepted, 0 fixed, 0 rejected, 0 added\n")


def test_frames_between_are_written_if_asked_for(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    assert "cvat-video: 7 frames" in run("export", log, "--format", "cvat-video").output
    assert "cvat-video: 31 frames" in run("export", log, "--format", "cvat-video", "--between").output


def test_other_tools_are_asked(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    write_log(tmp_path)
    run("export", tmp_path, "--format", "coco,voc")
    done = run("check", tmp_path / "exports", "--with", "pycocotools")
    assert done.output == "coco: sound\ncoco, pycocotools: reads it\nvoc: sound\n"
    path = tmp_path / "exports/coco/annotations/instances_train.json"
    path.write_text(path.read_text().replace('"segmentation":', '"so":'))
    done = run("check", tmp_path / "exports", "--with", "pycocotools")
    assert done.exit_code == Exit.FAILED
    assert "coco, pycocotools: 1 faults\n  pycocotools: it fails: KeyError" in done.output


def test_a_page_and_a_sheet(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (90, 90, 90)).save(tmp_path / "a.png")
    (media,) = find([str(tmp_path / "a.png")], tmp_path, Limits())
    frame = Frame(src=media.digest, name=media.name, frame=0, pts=None, tb="1/1000", t="0", w=40, h=30)
    (tmp_path / LOG).write_bytes(encode(frame))
    done = run("look", tmp_path, tmp_path / "a.png", "--as", "sheet,overlay,page")
    assert done.exit_code == 0, done.output
    names = ["sheet.png", "overlay/a.png", "page.html"]
    assert done.output.split() == [str(tmp_path / "looks" / name) for name in names]


BRIGHT = """
from penstock import Runtime
from penstock.annotate import Picture

rt = Runtime("manifest.yml")


@rt.command("bright")
def bright(image: Picture) -> dict[str, object]:
    return {"regions": [{"label": "light", "box": [0, 0, image.width, image.height]}]}
"""


def test_a_run_can_end_with_exports_and_overlays(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "bright").mkdir()
    (tmp_path / "bright/manifest.yml").write_text("name: bright\nversion: 1.0.0\nentrypoint: run.py\n")
    (tmp_path / "bright/run.py").write_text(BRIGHT)
    Image.new("RGB", (40, 30), (90, 90, 90)).save(tmp_path / "a.png")
    asked = ("annotate", tmp_path / "a.png", "--model", tmp_path / "bright", "--command", "bright")
    done = penstock(*asked, "--out", tmp_path / "out", "--json", "--export", "coco,csv", "--overlay")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert decode(line.encode()).regions[0].box == (0.0, 0.0, 40.0, 30.0)
    assert "csv: 1 frames, 1 regions in " in done.stderr
    assert (tmp_path / "out/exports/coco/annotations/instances_train.json").is_file()
    assert (tmp_path / "out/looks/overlay/a.png").is_file()
    refused = penstock(*asked, "--out", tmp_path / "new", "--export", "kitti")
    assert refused.returncode == Exit.USAGE
    assert "there is no format kitti" in refused.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "nowhere", "--format", "coco"), "nowhere is not there; `penstock annotate` writes it"),
        (("export", ".", "--format", "kitti"), "there is no format kitti"),
        (("export", ".", "--format", "coco", "--reduce", "1"), "is no tolerance such as px=1"),
        (("check", ".", "--with", "cocotools"), "there is no reader cocotools"),
        (("look", ".", "a.png", "--as", "film"), "there is no look film; there are sheet, overlay, page"),
        (("check", "."), "has no folder with the name of a format"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == Exit.USAGE
    assert said in done.output
