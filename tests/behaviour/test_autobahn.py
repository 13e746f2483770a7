"""WebSocket conformance (P27): nothing fails of the Autobahn suite.  Compression (cases 12 and 13) is off by
design: streams are never compressed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from behaviour.promises import promise

HERE = Path(__file__).parent
SITE = Path(sys.prefix) / "autobahn27"  # `make autobahn` installs the suite there


def _python2() -> str | None:
    """Return a Python 2.7 that runs: a version manager's shim may be there with nothing behind it."""
    found = os.environ.get("PYTHON2") or shutil.which("python2.7")
    if found is None or subprocess.run([found, "-c", ""], capture_output=True).returncode != 0:
        return None
    return found


PYTHON2 = _python2()
DOC = HERE.parents[1] / "docs" / "websocket-conformance.md"
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")

pytestmark = [
    pytest.mark.skipif(PYTHON2 is None, reason="the suite runs under Python 2.7 only; none here"),
    pytest.mark.skipif(not SITE.is_dir(), reason="the suite is not installed: make autobahn"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what the suite found, by case."""
    folder = tmp_path_factory.mktemp("autobahn")
    with echoing() as url:
        spec = {
            "outdir": str(folder),
            "servers": [{"agent": "penstock", "url": url}],
            "cases": ["*"],
            "exclude-cases": ["12.*", "13.*"],
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        command = [str(PYTHON2), str(HERE / "autobahn_run.py"), str(SITE), str(folder / "spec.json")]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    found = json.loads((folder / "index.json").read_text())["penstock"]
    return {case: result["behavior"] for case, result in found.items()}


@contextmanager
def echoing() -> Iterator[str]:
    """Run the echo server; yields its URL."""
    command = [sys.executable, str(HERE / "autobahn_echo.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"ws://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


@promise("P27")
def test_nothing_fails(results: dict[str, str]) -> None:
    assert len(results) >= 290
    assert {case: result for case, result in results.items() if result not in GOOD} == {}


@promise("P27")
def test_the_docs_list_every_case_that_is_not_ok(results: dict[str, str]) -> None:
    text = DOC.read_text(encoding="utf-8")
    listed = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert {case for case, result in results.items() if result != "OK"} <= listed
