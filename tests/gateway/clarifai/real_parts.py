"""Clarifai's own runner, unmodified, as a process, and a gateway that it dials.

Its packages have an environment of their own: ``PENSTOCK_CLARIFAI_PYTHON`` names its interpreter, and else it
is ``.venv-clarifai``, which ``make test`` makes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cli.processes import PATIENCE_S, Server, started

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TOY = HERE / "toy"
NAMED = os.environ.get("PENSTOCK_CLARIFAI_PYTHON", "")
PYTHON = Path(NAMED or ROOT / ".venv-clarifai/bin/python")

needs_clarifai = pytest.mark.skipif(
    not PYTHON.is_file(), reason=f"there is no {PYTHON} with Clarifai's packages; `make test` makes one"
)


class Gateway(Server):
    """A running `penstock gateway` that Clarifai's runners can dial."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        self.clarifai_url = found.group()

    def runners(self) -> list[dict[str, object]]:
        """Return the runners that are there."""
        return list(httpx.get(f"{self.url}/v2/runners").json()["runners"])

    def until_there(self, capacity: int) -> None:
        """Return once a runner has so many threads there."""
        until(
            lambda: any((one["capacity"], one["state"]) == (capacity, "connected") for one in self.runners())
        )


@contextmanager
def gateway(*arguments: object, **env: str) -> Iterator[Gateway]:
    """Run a gateway."""
    with started("gateway", "--port", 0, "--clarifai-port", 0, *arguments, **env) as process:
        yield Gateway(process)


class RealRunner:
    """A running runner process.

    Args:
        process: The process; what it prints is kept.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def until_printed(self, text: str) -> None:
        """Return once it has printed something."""
        until(lambda: any(text in line for line in self.printed))

    def end(self) -> None:
        """Kill it, however it is."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self._reading.join(PATIENCE_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.printed.extend(iter(lines.readline, ""))


@contextmanager
def runner(
    base: str, home: Path, *, model: Path = TOY, name: str = "toy", threads: int = 4, **env: str
) -> Iterator[RealRunner]:
    """Run Clarifai's runner."""
    arguments = {
        "model_path": model,
        "compute_cluster_id": "cc1",
        "nodepool_id": "np1",
        "runner_id": name,
        "health_check_port": 0,
        "num_threads": threads,
    }
    given = {"CLARIFAI_PAT": "none", "CLARIFAI_USER_ID": "u1", "CLARIFAI_API_BASE": base, "HOME": str(home)}
    command = [str(PYTHON), "-u", "-m", "clarifai.runners.server"]
    for name, value in arguments.items():
        command += [f"--{name}", str(value)]
    process = subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], **given, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = RealRunner(process)
    try:
        yield found
    finally:
        found.process.send_signal(signal.SIGCONT)
        found.end()


def until(what: Callable[[], bool]) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)
