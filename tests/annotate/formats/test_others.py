"""Other tools read what was written, in a process of their own; what they say, and how they end, is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from annotate.logs import dataset
from penstock.annotate.errors import ConfigError
from penstock.annotate.formats import others
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.others import TOOLS, check_with, tools_named
from penstock.annotate.formats.registry import FORMATS

pytest.importorskip("pycocotools")
FILE = "annotations/instances_train.json"


def said(name: str, folder: Path) -> list[str]:
    found = check_with("pycocotools", name, folder)
    assert found is not None
    return [one.what for one in found]


@pytest.mark.parametrize("name", ["coco", "coco-rle", "coco-results"])
def test_what_is_sound_is_read(name: str, tmp_path: Path) -> None:
    FORMATS[name].write(dataset(), tmp_path)
    assert said(name, tmp_path) == []


def test_what_is_not_is_told(tmp_path: Path) -> None:
    FORMATS["coco-rle"].write(dataset(), tmp_path)
    path = tmp_path / FILE
    document = json.loads(path.read_text())
    masks = [one for one in document["annotations"] if isinstance(one["segmentation"], dict)]
    masks[0]["area"] += 1
    document["annotations"].append(document["annotations"][0])
    path.write_text(json.dumps(document))
    count, area, name = len(document["annotations"]), masks[0]["area"], masks[0]["id"]
    assert said("coco-rle", tmp_path) == [
        f"it finds {count - 1} annotations; {count} are written",
        f"annotation {name} covers {area - 1} pixels there; {area} are written",
    ]


def test_a_tool_that_fails_does_no_harm(tmp_path: Path) -> None:
    FORMATS["coco"].write(dataset(), tmp_path)
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('"segmentation":', '"so":'))
    (what,) = said("coco", tmp_path)
    assert what == "it fails: KeyError: 'segmentation'"


def test_a_tool_that_ends_its_process_or_stays_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others.sys, "executable", "/bin/false")
    assert said("coco", tmp_path) == ["its process ended with code 1: it said nothing"]
    script = tmp_path / "wait"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(others.sys, "executable", str(script))
    (fault,) = check_with("pycocotools", "coco", tmp_path, timeout_s=0.05) or []
    assert fault.what == "it was not done after 0.05 s"


def test_what_a_tool_does_not_read_is_not_asked(tmp_path: Path) -> None:
    assert check_with("pycocotools", "voc", tmp_path) is None


def test_a_log_of_nothing(tmp_path: Path) -> None:
    for name in TOOLS["pycocotools"].reads:
        FORMATS[name].write(Dataset(list), tmp_path / name)
        assert said(name, tmp_path / name) == []


def test_only_what_is_there_can_be_asked() -> None:
    assert tools_named(["pycocotools"]) == ["pycocotools"]
    with pytest.raises(ConfigError, match="no reader cocotools; there are pycocotools, "):
        tools_named(["cocotools"])


def test_no_more_than_so_many_faults_are_told(tmp_path: Path) -> None:
    FORMATS["coco-rle"].write(dataset(), tmp_path)
    path = tmp_path / FILE
    document = json.loads(path.read_text())
    (mask, *_) = [one for one in document["annotations"] if isinstance(one["segmentation"], dict)]
    document["annotations"] = [{**mask, "id": number, "area": 1} for number in range(1, 40)]
    path.write_text(json.dumps(document))
    assert len(said("coco-rle", tmp_path)) == 20
