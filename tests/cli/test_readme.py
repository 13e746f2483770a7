"""README.md is true: its project is the example, its requests work as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.processes import PATIENCE_S, Server, environment, started

ROOT = Path(__file__).parents[2]
STORYTELLER = ROOT / "examples" / "storyteller"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, beginning: str = "") -> list[str]:
    """Return the fenced blocks in a language that begin so."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    return [text for kind, text in BLOCK.findall(page) if kind == language and text.startswith(beginning)]


def read(command: str) -> list[Any]:
    """Return the frames that a shell command prints."""
    ran = subprocess.run(command, shell=True, capture_output=True, check=True, timeout=PATIENCE_S)
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def storyteller() -> Iterator[Server]:
    with started("run", STORYTELLER, "--port", 0) as process:
        yield Server(process)


def test_the_project_shown_is_the_example() -> None:
    assert (STORYTELLER / "manifest.yml").read_text(encoding="utf-8").startswith(blocks("yaml")[0])
    assert (STORYTELLER / "run.py").read_text(encoding="utf-8").endswith(blocks("python", "from")[0])


def test_the_stream_and_its_cancel_work_as_they_stand(storyteller: Server) -> None:
    stream, cancel, again, workflow = (
        block.replace("http://127.0.0.1:8000", storyteller.url) for block in blocks("sh", "curl")
    )
    with subprocess.Popen(stream, shell=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reading:
        assert reading.stdout is not None
        frames = [json.loads(reading.stdout.readline()) for _ in range(3)]
        told = subprocess.run(cancel, shell=True, capture_output=True, check=True, timeout=PATIENCE_S)
        frames += [json.loads(line) for line in reading.stdout]
    assert json.loads(told.stdout)["outcome"] == "cancelled"
    assert [frame["status"] for frame in frames[:2]] == ["accepted", "streaming"]
    assert frames[-1]["status"] == "cancelled"
    assert read(again) == frames[2:]
    statuses = [frame["status"] for frame in read(workflow)]
    assert (statuses[0], statuses[-1]) == ("accepted", "completed")


def test_the_python_caller_works_as_it_stands(storyteller: Server) -> None:
    (code,) = blocks("python", "from penstock import Client")
    code = code.replace("http://127.0.0.1:8000", storyteller.url)
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("tokens/s\n")
