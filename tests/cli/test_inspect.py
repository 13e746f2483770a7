"""`penstock inspect` and `penstock doctor` look at a project without starting it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.processes import Penstock

MANIFEST = """
name: tiny
version: 1.2.3
entrypoint: run.py
workflows:
  both: {steps: [{id: one, command: add, input: {a: 1, b: 2}}, {id: two, command: COMMAND}]}
"""
CODE = """
from penstock import Runtime

rt = Runtime("manifest.yml")


@rt.command("add")
def add(a: int, b: int):
    return a + b


@rt.streaming_command("predict")
def predict():
    yield 1
"""


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "manifest.yml").write_text(MANIFEST.replace("COMMAND", getattr(request, "param", "predict")))
    (tmp_path / "run.py").write_text(CODE)
    return tmp_path


def test_inspect_shows_commands_and_workflows(penstock: Penstock, project: Path) -> None:
    ended = penstock("inspect", project)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "tiny 1.2.3",
        "",
        "add(a: integer, b: integer) answers",
        "",
        "predict() streams  (default)",
        "",
        "workflow both: one: add → two: predict",
    ]


def test_inspect_as_json_is_the_whole_description(penstock: Penstock, project: Path) -> None:
    shown = json.loads(penstock("inspect", project, "--json").stdout)
    assert list(shown["commands"]) == ["add", "predict"]
    assert list(shown["workflows"]) == ["both"]


@pytest.mark.parametrize("project", ["predicts"], indirect=True)
@pytest.mark.parametrize("verb", ["inspect", "doctor"])
def test_a_manifest_that_does_not_fit_is_told(penstock: Penstock, project: Path, verb: str) -> None:
    ended = penstock(verb, project)
    assert ended.returncode == 1
    assert "did you mean predict?" in ended.stdout + ended.stderr


def test_help_tells_the_environment_of_the_server(penstock: Penstock) -> None:
    shown = penstock("run", "--help", COLUMNS="200").stdout
    variables = ("PENSTOCK_HOST", "PENSTOCK_PORT", "PENSTOCK_WS_PORT", "PENSTOCK_ENGINE")
    assert [name for name in variables if name not in shown] == []
