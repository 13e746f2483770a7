"""The vendor's own SDK for Node, unchanged, against our server; what is tried stands in ``node``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest

from openai_api.conftest import shown

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

HOME = Path(__file__).parent / "node"
NODE, NPM = shutil.which("node"), shutil.which("npm")
OLDEST = 20
INSTALL_S = 60.0


@pytest.fixture
def node() -> str:
    """Node with the SDK, which is installed where it is not there yet."""
    if NODE is None or int(_said(NODE, "--version").lstrip("v").partition(".")[0] or 0) < OLDEST:
        pytest.skip(f"there is no Node of version {OLDEST} or later here")
    if not (HOME / "node_modules" / "openai").is_dir() and NPM is not None:
        install = [NPM, "ci", "--no-audit", "--no-fund", "--fetch-retries", "0"]
        subprocess.run(install, cwd=HOME, capture_output=True, timeout=INSTALL_S, check=False)
    if not (HOME / "node_modules" / "openai").is_dir():
        pytest.skip("OpenAI's SDK for Node cannot be had: `make node-sdk` installs it")
    return NODE


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()


async def test_its_own_tests_pass(node: str, other_clients: dict[str, str]) -> None:
    command = [node, "--test-reporter=tap", "openai.test.mjs"]
    ran = await anyio.run_process(command, cwd=HOME, env=other_clients, check=False, stderr=subprocess.STDOUT)
    told = ran.stdout.decode()
    assert ran.returncode == 0, told
    assert re.search(r"^# pass [1-9]\d", told, re.MULTILINE), told
    assert re.search(r"^# skipped 0$", told, re.MULTILINE), told


async def test_what_the_page_shows_runs(node: str, url: str) -> None:
    command = [node, "--input-type=module", "-e", shown(url, "js")]
    ran = await anyio.run_process(command, cwd=HOME, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"hi"), ran.stderr.decode()


def test_it_is_pinned_and_its_lock_names_no_host() -> None:
    package = json.loads((HOME / "package.json").read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["devDependencies"].values())
    assert "://" not in (HOME / "package-lock.json").read_text(encoding="utf-8")
