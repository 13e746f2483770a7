"""What the benchmarks start is ended, with all that it started itself."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CHILD = "import signal; print(flush=True); signal.pause()"
PARENT = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("processes")


def test_a_process_that_leaves_children_behind_leaves_none(processes: ModuleType) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert processes.family(parent.pid) == [parent.pid, child]
            assert set(processes.cpu_seconds([parent.pid, child])) == {parent.pid, child}
            processes.end(parent)
        finally:
            parent.kill()
    assert not runs(child)


def test_a_process_that_is_gone_has_used_nothing(processes: ModuleType) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert processes.cpu_seconds([gone.pid]) == {}
    assert processes.family(gone.pid) == [gone.pid]


def runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
