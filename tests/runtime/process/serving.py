"""A real server, whose commands run in other processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

BOUND_S = 20


class Server:
    """A running ``penstock run``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        self.http = httpx.Client(base_url=found.group(), timeout=BOUND_S)
        # What it logs is read on, so that it never waits for a full pipe.
        self.reading = threading.Thread(target=process.stderr.read, daemon=True)
        self.reading.start()

    def children(self) -> list[int]:
        """Return its child processes."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def call(self, command: str, **given: object) -> httpx.Response:
        """Run a command; return the response of a call that does not stream."""
        return self.http.post("/v2/execute", json={"command": command, "input": given})

    def first_item(self, command: str) -> Any:
        """Open a call that goes on whoever reads; return its first item."""
        body = {"command": command, "is_stream": True, "on_disconnect": "continue"}
        with self.http.stream("POST", "/v2/execute", json=body) as response:
            for line in response.iter_lines():
                if (frame := json.loads(line))["status"] == "streaming":
                    return frame["data"]
        raise AssertionError("the stream ended")


@contextmanager
def serving(folder: Path, *commands: str, workers: int = 0) -> Iterator[Server]:
    """Serve the deadly zoo with ``penstock run``, some commands in processes of their own."""
    isolated = ", ".join(f"{name}: {{isolation: process}}" for name in commands)
    (folder / "manifest.yml").write_text(f"name: zoo\nentrypoint: run.py\ncommands: {{{isolated}}}\n")
    (folder / "run.py").write_text(
        'from penstock.testing.deadly import deadly_zoo\nanimals = deadly_zoo("manifest.yml")\n'
    )
    line = [
        sys.executable,
        "-m",
        "penstock.cli",
        "run",
        str(folder),
        "--port",
        "0",
        "--workers",
        str(workers),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    env = {**os.environ, "PENSTOCK_DRAIN_S": "0.5"}
    with subprocess.Popen(line, text=True, env=env, **pipes) as process:
        server = None
        try:
            server = Server(process)
            yield server
        finally:
            process.kill()
            if server is not None:
                server.http.close()
                server.reading.join(BOUND_S)
                assert not server.reading.is_alive()  # whoever is left would hold the pipe open


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked how."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, and before it was read
        return False
