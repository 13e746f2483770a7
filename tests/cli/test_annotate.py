"""`penstock annotate`, as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from annotate import films, streams

pytest.importorskip("av")

PROJECT = """
from penstock import Runtime
from penstock.annotate import Picture

rt = Runtime()


@rt.command("middle")
def middle(image: Picture, size: int = 10) -> dict:
    x, y = image.width / 2, image.height / 2
    return {"found": [{"what": "middle", "at": [x - size / 2, y - size / 2, size, size], "sure": 0.9}]}
"""
PROJECT += """

@rt.command("all")
async def all_(images: list[dict]) -> dict:
    return {"each": [{"regions": [], "labels": [{"label": str(len(images))}]} for _ in images]}
"""
ANSWER = "items=found,label=what,box=at,boxes=xywh,score=sure"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotate")
    (folder / "project.py").write_text(PROJECT)
    films.write(folder / "a.mp4", 30, options={"preset": "ultrafast"})
    return folder


def ran(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.cli", "annotate", *words]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60, check=False)


def test_a_film_is_annotated_and_continued(here: Path) -> None:
    words = (
        "a.mp4",
        "--model",
        "project.py",
        "--command",
        "middle",
        "--answer",
        ANSWER,
        "--param",
        "size:=20",
    )
    first = ran(here, *words, "--fps", "5", "--track", "--json")
    assert first.returncode == 0, first.stderr
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 6, 12, 18, 24]
    assert {tuple(line["regions"][0]["box"]) for line in lines} == {(70.0, 50.0, 90.0, 70.0)}
    assert {line["regions"][0]["track"] for line in lines} == {"t1"}
    assert "5 frames, 5 regions" in first.stderr
    again = ran(here, *words, "--fps", "5", "--track", "--json", "--resume")
    assert (again.returncode, again.stdout) == (0, "")
    other = ran(here, *words, "--fps", "6", "--track")
    assert other.returncode == 1
    assert "the setting sampling" in other.stderr
    assert ran(here, *words, "--fps", "6", "--track", "--restart").returncode == 0


def test_several_frames_are_asked_about_at_once(here: Path) -> None:
    words = ("--command", "all", "--image", "images", "--batch", "4", "--answer", "each=each")
    done = ran(here, "a.mp4", "--model", "project.py", *words, "--limit", "6", "--json", "--out", "batches")
    assert done.returncode == 0, done.stderr
    labels = [json.loads(line)["labels"][0]["label"] for line in done.stdout.splitlines()]
    assert labels == ["4"] * 4 + ["2"] * 2


def test_a_dry_run_asks_nobody(here: Path) -> None:
    done = ran(here, "a.mp4", "--every", "4", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "a.mp4: 8 of 30 frames, 1.00 s\n")


def test_what_the_page_shows_of_refining_is_taken(here: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "annotate.md").read_text()
    (here / "refine.yml").write_text(page.split("```yaml\n")[1].split("```")[0])
    done = ran(here, "a.mp4", "--limit", "1", "--dry-run", "--refine", "refine.yml", "--command", "x")
    assert (done.returncode, done.stdout) == (0, "a.mp4: 1 frames\n"), done.stderr


def test_standard_input_is_annotated_as_it_comes(here: Path) -> None:
    data = streams.film(here / "live.ts", 60).read_bytes()
    words = [
        "-",
        "--live",
        "--model",
        "project.py",
        "--command",
        "middle",
        "--answer",
        ANSWER,
        "--out",
        "live",
    ]
    command = [sys.executable, "-m", "penstock.cli", "annotate", *words, "--json", "--backlog", "3"]
    done = subprocess.run(command, cwd=here, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (here / "live" / "annotations.jsonl").read_text().splitlines()]
    frames = [line["frame"] for line in log if "frame" in line]
    assert frames[-1] == 59
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == frames
    lost = sum(line.get("lost", 0) for line in log)
    assert len(frames) + lost == 60
    assert (f"{lost} frames came faster" in done.stderr.decode()) == bool(lost)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("a.mp4",), 2, "--command NAME"),
        (("a.mp4", "--command", "x", "--model", "nowhere"), 2, "neither a URL nor a project"),
        (("a.mp4", "--command", "x", "--every", "2", "--fps", "1"), 2, "cannot be combined"),
        (("a.mp4", "--command", "x", "--answer", "boxes=wrong"), 2, "the format of answers"),
        (("a.mp4", "--command", "x", "--resume", "--restart"), 2, "cannot be combined"),
        (("a.mp4", "--command", "x", "--model", "http://127.0.0.1:9"), 3, "no server answers"),
        (("b.mp4", "--command", "middle", "--model", "project.py"), 1, "b.mp4 is not there"),
        (("a.mp4", "--live", "--dry-run"), 2, "leave --dry-run out"),
        (("/dev/video0", "--overlay", "--command", "x"), 2, "leave --overlay out"),
        (("/dev/video9", "--command", "middle", "--model", "project.py"), 1, "/dev/video9 cannot be read"),
        (("a.mp4", "a.mp4", "--live", "--command", "middle", "--model", "project.py"), 2, "by itself"),
        (("a.mp4", "--live", "--backlog", "0", "--command", "x", "--model", "project.py"), 2, "at least 1"),
        (("a.mp4", "--command", "all", "--image", "images", "--model", "project.py"), 2, "--batch 8"),
        (("a.mp4", "--command", "middle", "--tries", "0", "--model", "project.py"), 2, "at least 1"),
        (("a.mp4", "--command", "midle", "--model", "project.py"), 2, "did you mean middle"),
        (("a.mp4", "--command", "middle", "--model", "project.py"), 1, "field 'regions'"),
    ],
)
def test_what_cannot_be_done_is_said(here: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = ran(here, *words, "--out", "refused")
    assert said in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_it_and_it_goes_on(here: Path) -> None:
    words = ["a.mp4", "--model", "project.py", "--command", "middle", "--answer", ANSWER, "--out", "broken"]
    command = [sys.executable, "-m", "penstock.cli", "annotate", *words, "--json", "--window", "1"]
    with subprocess.Popen(
        command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        # Not `communicate`, which passes over what `readline` has read ahead.
        rest, said = process.stdout.read(), process.stderr.read()
    if process.returncode == 130:
        assert "goes on from there" in said
    else:
        assert process.returncode == 0  # it was quicker
    more = ran(here, *words, "--json")
    frames = [json.loads(line)["frame"] for line in [first, *rest.splitlines(), *more.stdout.splitlines()]]
    assert frames == sorted(set(frames))
    log = (here / "broken" / "annotations.jsonl").read_text().splitlines()
    assert [json.loads(line).get("frame") for line in log] == [*range(30), None]
