"""The benchmark report is generated, never edited."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*/results.json"))


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("report")


def test_the_report_is_what_the_newest_results_give(report: ModuleType) -> None:
    newest = RESULTS[-1]
    source = newest.relative_to(BENCHMARKS).as_posix()
    assert (BENCHMARKS / "README.md").read_text() == report.render(json.loads(newest.read_text()), source)


def test_a_changed_result_changes_the_report(report: ModuleType) -> None:
    results = json.loads(RESULTS[-1].read_text())
    before = report.render(results, "here")
    for sample in results["samples"]:
        if "tokens_per_s" in sample:
            sample["tokens_per_s"] *= 2
    assert report.render(results, "here") != before


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_results_name_no_machine_and_no_path(path: Path) -> None:
    text = path.read_text()
    assert set(json.loads(text)["machine"]) == {"cpu", "cores", "system", "python"}
    assert not [word for word in ("/home", "/tmp", "/work", "/root") if word in text]


def test_the_load_refuses_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    load = import_module("load")
    job = load.Job("predict", 1)
    item, end = b'{"status":"streaming"}\n', b'{"status":"completed"}\n'
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    job.check(head + item + end)
    for wrong in (head + end, head + item, head + end + item, head + item + item + end, item + end):
        with pytest.raises(load.WrongAnswer):
            job.check(wrong)


def test_the_report_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "report.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
