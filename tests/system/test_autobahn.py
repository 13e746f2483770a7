"""WebSocket conformance (P27): the Autobahn suite finds nothing in our protocol class that it does not find
in stock uvicorn.  Compression (cases 12 and 13) is off by design: streams are never compressed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what the suite found, by server and case."""
    folder = tmp_path_factory.mktemp("autobahn")
    with echoing("ours") as ours, echoing("stock") as stock:
        spec = {
            "outdir": str(folder),
            "servers": [{"agent": "ours", "url": ours}, {"agent": "stock", "url": stock}],
            "cases": ["*"],
            "exclude-cases": ["12.*", "13.*"],
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        command = [str(PYTHON2), str(HERE / "autobahn_run.py"), str(SITE), str(folder / "spec.json")]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    found: dict[str, dict[str, Any]] = json.loads((folder / "index.json").read_text())
    return found


@contextmanager
def echoing(kind: str) -> Iterator[str]:
    """Run an echo server on a free port; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "autobahn_echo.py"), kind, str(port)])
    try:
        _wait_for(port, process)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=15)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)  # a server of another make has no way to say that it is ready
        else:
            return
    raise AssertionError("the echo server did not start")


def test_nothing_fails_that_stock_uvicorn_passes(results: dict[str, dict[str, Any]]) -> None:
    assert len(results["ours"]) >= 290
    worse = {
        case: found["behavior"]
        for case, found in results["ours"].items()
        if found["behavior"] not in GOOD and results["stock"][case]["behavior"] in GOOD
    }
    assert worse == {}


def test_the_docs_list_every_case_that_is_not_ok(results: dict[str, dict[str, Any]]) -> None:
    not_ok = {case for case, found in results["ours"].items() if found["behavior"] != "OK"}
    text = DOC.read_text(encoding="utf-8")
    listed = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert not_ok <= listed
