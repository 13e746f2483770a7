"""`penstock new` and `penstock exec`, and `penstock run --reload`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from queue import Queue

import httpx

from cli.processes import PATIENCE_S, Penstock, Serve, command, environment

NAMES = """
import sys

from clarifai_protocol import get_request_id
from sagellm_protocol import Request
from xumi.runtime.runtime_v2 import XUMIRuntimeV2

import neighbour

print(XUMIRuntimeV2("manifest.yml").manifest.name, get_request_id(), neighbour.HERE, sys.argv[1:], __name__)
"""
VERSION = """
from penstock import Runtime

rt = Runtime()


@rt.command("version")
def version():
    return {number}
"""


def test_a_new_project_serves_as_it_is(penstock: Penstock, serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "My first project"
    made = penstock("new", folder, "--engine", "scripted:text=Once upon a time")
    assert made.returncode == 0, made.stderr
    assert "penstock run" in made.stdout
    server = serve(folder)
    body = {"command": "predict", "input": {"prompt": "A fox"}}
    answer = httpx.post(f"{server.url}/v2/execute", json=body, timeout=PATIENCE_S).json()
    assert answer["data"] == {"text": "Once upon a time", "chunk": "", "finished": True}
    assert httpx.get(f"{server.url}/health").json()["name"] == "my-first-project"


def test_a_new_project_overwrites_nothing(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    refused = penstock("new", tmp_path)
    assert refused.returncode == 2
    assert "exists already" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_exec_runs_a_program_with_the_reference_names(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(NAMES)
    (tmp_path / "manifest.yml").write_text("name: other\nentrypoint: program.py\n")
    (tmp_path / "neighbour.py").write_text("HERE = 'here'\n")
    done = penstock("exec", tmp_path / "program.py", "--flag", "value")
    assert done.stdout.strip() == "other None here ['--flag', 'value'] __main__", done.stderr


def test_a_failing_program_fails(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("raise SystemExit(7)\n")
    assert penstock("exec", tmp_path / "program.py").returncode == 7


def test_reload_serves_the_file_as_it_is_now(tmp_path: Path) -> None:
    program = tmp_path / "run.py"
    program.write_text(VERSION.format(number=1))
    process = subprocess.Popen(
        command("run", program, "--reload", "--port", 0),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines: Queue[str] = Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True).start()
    try:
        assert asked(lines) == 1
        program.write_text(VERSION.format(number=2))
        assert asked(lines) == 2
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def asked(lines: Queue[str]) -> int:
    """Wait for the next server to be ready, and return the version it serves."""
    found = re.search(r"http://\S+", lines.get(timeout=PATIENCE_S))
    assert found
    body = {"command": "version"}
    answer = httpx.post(f"{found.group()}/v2/execute", json=body, timeout=PATIENCE_S).json()
    return int(answer["data"])
