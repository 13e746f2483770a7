"""What the page is served by: the real commands, in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parent / "project"
READY = re.compile(r"ready on (http://[\d.:]+)")


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a verb of penstock until the block is left."""
    command = [sys.executable, "-m", "penstock.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=15)
        finally:
            process.kill()


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Run a verb that serves; give where."""
    with running(*arguments, "--port", "0") as process:
        assert process.stdout is not None
        found = READY.search(process.stdout.readline())
        assert found is not None, "it is not ready"
        yield found[1]
