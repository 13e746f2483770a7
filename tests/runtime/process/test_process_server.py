"""P18 and P19 with a real server: it outlives its processes, and they do not outlive it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

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
def serving(folder: Path, *commands: str) -> Iterator[Server]:
    isolated = ", ".join(f"{name}: {{isolation: process}}" for name in commands)
    (folder / "manifest.yml").write_text(f"name: zoo\nentrypoint: run.py\ncommands: {{{isolated}}}\n")
    (folder / "run.py").write_text(
        'from penstock.testing.deadly import deadly_zoo\nanimals = deadly_zoo("manifest.yml")\n'
    )
    line = [sys.executable, "-m", "penstock.cli", "run", str(folder), "--port", "0"]
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


@pytest.mark.parametrize("busy_with", [None, "silent", "gil_hold", "spin_loop", "freeze"])
async def test_no_process_outlives_a_killed_server(folder: Path, gone: Any, busy_with: str | None) -> None:
    with serving(folder, "whoami", busy_with or "silent") as server:
        children = server.children()
        assert len(children) == 2
        assert server.call("whoami").json()["data"]["pid"] in children
        if busy_with not in (None, "silent"):
            assert server.first_item(busy_with) == {"tick": 0}
        server.process.kill()
        server.process.wait(BOUND_S)
        for child in children:
            await gone(child)


async def test_a_server_that_closes_in_order_takes_its_processes_along(folder: Path, gone: Any) -> None:
    with serving(folder, "whoami", "fork_child") as server:
        children = server.children()
        forked = server.first_item("fork_child")["pid"]
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(BOUND_S) == 0
        for child in (*children, forked):
            await gone(child)


async def test_probes_answer_while_processes_die(folder: Path) -> None:
    with serving(folder, "exit_at", "segv_at") as server:
        slowest = 0.0
        for command in ("exit_at", "segv_at") * 3:
            response = server.call(command, k=1)
            assert response.status_code == 503
            assert response.json()["code"] == "unavailable"
            assert "retry-after" in response.headers
            for probe in ("/livez", "/readyz", "/health"):
                began = time.monotonic()
                assert server.http.get(probe).status_code == 200
                slowest = max(slowest, time.monotonic() - began)
        assert slowest < BOUND_S / 10
        assert server.call("echo", value=1).json()["data"] == 1
        assert not [pid for pid in server.children() if _is_zombie(pid)]


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
