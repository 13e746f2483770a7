"""How long a command takes that does nothing, from a new process to its end, and what it loads meanwhile."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from load import WrongAnswer, arguments, percentiles

STARTS_PER_S = 6
FEWEST = 10
HELP = "import sys; sys.argv = ['penstock', '--help']; from penstock.cli import main; main()"
CODE = {"python": "pass", "import": "import penstock", "help": HELP}
HEAVY = ("uvicorn", "starlette", "grpc", "xllamacpp")
SHOWN = 8
IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")


def measure(command: str, seconds: float) -> dict[str, Any]:
    """Start a command again and again; ``seconds`` is about how long."""
    took = [once(command) for _ in range(max(FEWEST, round(seconds * STARTS_PER_S)))]
    return {
        "command": command,
        "items": 0,
        "starts": len(took),
        "start_ms": percentiles([wall for wall, _ in took]),
        "start_cpu_ms": percentiles([cpu for _, cpu in took]),
        "imports_ms": imports(command),
        "heavy": heavy(command),
    }


def once(command: str) -> tuple[float, float]:
    """Return the seconds from a new process to its end, and those of CPU time."""
    began, used = time.perf_counter(), _used()
    run(sys.executable, "-c", CODE[command])
    return time.perf_counter() - began, _used() - used


def _used() -> float:
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of_children.ru_utime + of_children.ru_stime


def imports(command: str) -> dict[str, float]:
    """Return the milliseconds that the packages' own modules take, those of the longest."""
    own: Counter[str] = Counter()
    for found in IMPORTED.finditer(run(sys.executable, "-X", "importtime", "-c", CODE[command]).stderr):
        own[found[2].partition(".")[0]] += int(found[1])
    return {name: round(microseconds / 1000, 1) for name, microseconds in own.most_common(SHOWN)}


def heavy(command: str) -> list[str]:
    """Return which of the heavy packages the command loads."""
    names = f"[name for name in {HEAVY} if name in sys.modules]"
    tell = f"import atexit, sys; atexit.register(lambda: print('loaded', *{names}))\n"
    return run(sys.executable, "-c", tell + CODE[command]).stdout.rpartition("loaded")[2].split()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongAnswer(f"{command[-1]!r} failed: {done.stderr[-500:]}")
    return done


def main(args: argparse.Namespace) -> None:
    """Print what was measured as JSON, or exit with what was wrong."""
    os.sched_setaffinity(0, {args.core})
    try:
        print(json.dumps(measure(args.command, args.seconds)))
    except WrongAnswer as error:
        sys.exit(f"startup: {error}")


if __name__ == "__main__":
    main(arguments(__doc__).parse_args())
