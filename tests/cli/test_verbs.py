"""The command itself, and its small verbs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from cli.processes import Penstock

HEAVY = ("pydantic", "msgspec", "httpx", "starlette", "uvicorn", "uvloop", "xllamacpp", "asyncio")


def test_help_lists_the_verbs(penstock: Penstock) -> None:
    shown = penstock("--help")
    assert shown.returncode == 0
    assert [verb for verb in ("run", "call", "pull", "schema") if verb not in shown.stdout] == []


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, penstock.cli; print(*[name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_the_version_is_the_packages(penstock: Penstock) -> None:
    assert penstock("--version").stdout.strip() == f"penstock {version('penstock')}"


def test_an_unknown_verb_is_a_usage_error(penstock: Penstock) -> None:
    assert penstock("runn").returncode == 2


def test_schemas_are_printed_all_or_one(penstock: Penstock) -> None:
    every, one = penstock("schema"), penstock("schema", "Request")
    assert json.loads(every.stdout)["Request"] == json.loads(one.stdout)
    assert json.loads(one.stdout)["required"][0] == "request_id"


def test_a_schema_that_is_not_there_is_a_usage_error(penstock: Penstock) -> None:
    ended = penstock("schema", "Requst")
    assert ended.returncode == 2
    assert "Request" in ended.stderr


def test_a_model_that_is_there_is_checked_and_its_path_printed(penstock: Penstock) -> None:
    ended = penstock("pull", "smollm2-135m")
    assert ended.returncode == 0
    assert Path(ended.stdout.strip()).is_file()


def test_a_model_nobody_knows_is_named(penstock: Penstock) -> None:
    ended = penstock("pull", "nosuchmodel")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "nosuchmodel" in ended.stderr
    assert "smollm2-135m" in ended.stderr
