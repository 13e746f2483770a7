"""A project served by the real command, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

FIXTURES = Path(__file__).parent / "fixtures"
PAGE_HTTP = "localhost:8000"  # as the pages have them
PAGE_WS = "localhost:8765"


class Served(NamedTuple):
    """Where a project is served."""

    http: str  # host:port
    websocket: str

    def here(self, snippet: str) -> str:
        """Return a page's snippet with its ports changed to ours."""
        return snippet.replace(PAGE_HTTP, self.http).replace(PAGE_WS, self.websocket)


def fixture(name: str) -> str:
    """Return a snippet of a page."""
    return (FIXTURES / name).read_text(encoding="utf-8")


@contextmanager
def serving(project: Path) -> Iterator[Served]:
    """Serve ``project`` with `penstock run` on free ports until the block is left."""
    command = [sys.executable, "-m", "penstock.cli", "run", str(project), "--port", "0", "--ws-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        ports = re.findall(r"127\.0\.0\.1:\d+", ready)
        if len(ports) != 2:
            process.kill()
            raise AssertionError(f"not ready: {ready!r}\n{process.communicate()[1]}")
        yield Served(*ports)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=15)
        finally:
            process.kill()
