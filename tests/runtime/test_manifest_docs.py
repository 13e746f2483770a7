"""docs/manifest.md and docs/workflows.md name every key, and what they show can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from penstock.runtime.manifest import Manifest, load_manifest
from penstock.runtime.manifest_parts import CommandSettings, Retry, StepSpec, Timeouts, WorkflowSpec

ROOT = Path(__file__).parents[2]
MANIFEST, WORKFLOWS = ROOT / "docs" / "manifest.md", ROOT / "docs" / "workflows.md"


@pytest.mark.parametrize(
    ("page", "part"),
    [
        (MANIFEST, Manifest),
        (MANIFEST, CommandSettings),
        (MANIFEST, Timeouts),
        (WORKFLOWS, WorkflowSpec),
        (WORKFLOWS, StepSpec),
    ],
)
def test_every_key_has_a_row(page: Path, part: type[BaseModel]) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)
    assert set(part.model_fields) <= set(rows)


def test_every_row_is_a_key() -> None:
    parts = (Manifest, CommandSettings, Timeouts, WorkflowSpec, StepSpec)
    known = {key for part in parts for key in part.model_fields}
    for page in (MANIFEST, WORKFLOWS):
        assert set(re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)) <= known


def test_the_parts_of_a_retry_are_named() -> None:
    assert all(f"`{key}`" in WORKFLOWS.read_text() for key in Retry.model_fields)


@pytest.mark.parametrize("page", [MANIFEST, WORKFLOWS], ids=lambda page: page.stem)
def test_what_is_shown_can_be_loaded(page: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    assert shown
    for text in shown:
        (tmp_path / "manifest.yml").write_text(text)
        load_manifest(tmp_path / "manifest.yml")
    assert caplog.messages == []


def test_the_examples_can_be_loaded(caplog: pytest.LogCaptureFixture) -> None:
    manifests = sorted((ROOT / "examples").glob("*/manifest.yml"))
    assert manifests
    for path in manifests:
        load_manifest(path)
    assert caplog.messages == []
    plans = load_manifest(ROOT / "examples" / "storyteller" / "manifest.yml").plans()
    assert [step.id for step in plans["story_then_title"].steps()] == ["story", "title"]
