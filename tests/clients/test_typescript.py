"""The TypeScript client is built, and its own tests run: against real servers, with Node's test runner."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import DOCS, ROOT, fences

HOME = ROOT / "clients" / "typescript"
PAGE = DOCS / "typescript.md"
INSTALL_S = 60.0
TEST_S = 150.0
OLDEST = 20


def _major(node: str | None) -> int:
    """Return the version of a Node, 0 where none runs."""
    if node is None:
        return 0
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0


NODE = shutil.which("node")
NPM = shutil.which("npm")

pytestmark = [
    pytest.mark.skipif(not HOME.is_dir(), reason="the client's folder is not here"),
    pytest.mark.skipif(_major(NODE) < OLDEST, reason=f"there is no Node of version {OLDEST} or later here"),
    pytest.mark.timeout(INSTALL_S + TEST_S + 60),
]


@pytest.fixture
def compiler() -> Path:
    """The compiler, which is installed where it is not there yet."""
    tsc = HOME / "node_modules" / "typescript" / "bin" / "tsc"
    if not tsc.exists() and NPM is not None:
        install = [NPM, "ci", "--no-audit", "--no-fund", "--fetch-retries", "0"]
        with_timeout(install, INSTALL_S)
    if not tsc.exists():
        pytest.skip("the TypeScript compiler cannot be had: `make typescript` installs it")
    return tsc


def with_timeout(command: list[str], seconds: float) -> tuple[int, str]:
    """Run a command in the client's folder; end it with all that it started if it takes too long."""
    env = {**os.environ, "PENSTOCK_TEST_PYTHON": sys.executable}
    for name in ("PENSTOCK_API_KEY", "PENSTOCK_AUTH_KEYS"):
        env.pop(name, None)
    process = subprocess.Popen(
        command,
        cwd=HOME,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return -1, f"{said}\nit was ended after {seconds:g} s"
    return process.returncode, said


def test_it_builds_and_its_tests_pass(compiler: Path) -> None:
    assert NODE is not None
    shutil.rmtree(HOME / "dist", ignore_errors=True)  # what is no longer in the source must not run
    code, said = with_timeout([NODE, str(compiler)], TEST_S)
    assert code == 0, said
    _compile_snippets(compiler)
    code, said = with_timeout([NODE, "--test", "dist/tests/"], TEST_S)
    sys.stdout.write("\n".join(re.findall(r"^.*items/s.*$", said, re.MULTILINE)))
    assert code == 0, said
    assert re.search(r"^# pass [1-9]\d", said, re.MULTILINE), said


def _compile_snippets(compiler: Path) -> None:
    """Compile what the page about the client shows, against the client as it was built."""
    files = []
    for number, fence in enumerate(fence for fence in fences(PAGE) if fence.info == "ts"):
        files.append(HOME / "dist" / f"snippet_{number}.ts")
        files[-1].write_text(fence.body + "\nexport {};\n", encoding="utf-8")
    assert files
    strictly = ["--noEmit", "--strict", "--skipLibCheck", "--target", "ES2022", "--module", "NodeNext"]
    code, said = with_timeout([str(NODE), str(compiler), *strictly, *map(str, files)], TEST_S)
    assert code == 0, said


def test_the_client_stands_on_nothing_and_names_no_host() -> None:
    package = json.loads((HOME / "package.json").read_text(encoding="utf-8"))
    assert sorted(package["devDependencies"]) == ["@types/node", "typescript"]
    assert {"dependencies", "peerDependencies", "optionalDependencies"} & package.keys() == set()
    assert "://" not in (HOME / "package-lock.json").read_text(encoding="utf-8")
