"""Fuzzes targets with atheris: ``python run.py [--seconds N] [--found FOLDER] [TARGET ...]``, all by default.

What is new to coverage is kept in the folder, beside the inputs that fail.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = [path.name for path in sorted((HERE / "corpus").iterdir())]


def fuzz_one(name: str, seconds: int, found: Path) -> None:
    """Fuzz one target; libFuzzer ends this process."""
    import atheris

    sys.path.insert(0, str(HERE.parent))
    with atheris.instrument_imports(include=["penstock"]):
        from fuzz.targets import TARGETS
    logging.disable()  # what a manifest is warned about
    grown = found / name
    grown.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", "-max_len=2048", "-timeout=10", "-rss_limit_mb=2048"]
    options += [f"-artifact_prefix={found}/{name}-", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, str(grown), str(HERE / "corpus" / name)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz each target in a process of its own; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    targets = given.targets or NAMES
    if given.one:
        fuzz_one(targets[0], given.seconds, given.found.resolve())
    failed = [name for name in targets if _run(name, given.seconds, given.found)]
    print("failed: " + ", ".join(failed) if failed else f"nothing found in {len(targets)} targets")
    return 1 if failed else 0


def _run(name: str, seconds: int, found: Path) -> int:
    command = [sys.executable, __file__, "--one", f"--seconds={seconds}", f"--found={found}", name]
    ran = subprocess.run(command, capture_output=True, text=True)
    lines = ran.stderr.splitlines()
    told = [line for line in lines if line.startswith(("Done", "SUMMARY"))]
    print(f"{name}: {told[-1] if told else 'no result'}", flush=True)
    if ran.returncode:
        print("\n".join(lines[-40:]))
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
