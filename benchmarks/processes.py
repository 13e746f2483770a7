"""A process with all that it started: its CPU time, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
GRACE_S = 20.0  # to stop in an orderly way
LEFT_S = 5.0  # the same, for what was left behind


def family(pid: int) -> list[int]:
    """Return a process and its descendants that live."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = _stat(path)
        if fields:
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for parent in found:  # it grows meanwhile
        found += children.get(parent, ())
    return found


def cpu_seconds(pids: list[int]) -> dict[int, float]:
    """Return the CPU time, user and system, that each of these processes has used."""
    stats = {pid: _stat(Path(f"/proc/{pid}/stat")) for pid in pids}
    return {pid: (int(of[11]) + int(of[12])) / TICKS for pid, of in stats.items() if of}


def end(process: subprocess.Popen[str]) -> None:
    """Stop a process, and whatever it leaves behind."""
    started = {pid: _began(pid) for pid in family(process.pid)}
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pid in _alive(started):
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        until = time.monotonic() + LEFT_S
        while _alive(started) and time.monotonic() < until:
            time.sleep(0.02)


def _alive(started: dict[int, str]) -> list[int]:
    """Return those that still run, and whose number was not given to another process."""
    return [pid for pid, began in started.items() if began and _began(pid) == began]


def _began(pid: int) -> str:
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return fields[19] if fields and fields[0] != "Z" else ""


def _stat(path: Path) -> list[str]:
    """Return what stands behind the name of a process, which may hold anything; nothing if it is gone."""
    try:
        return path.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
