"""`make demo` does what it says, with the real model, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.processes import environment

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_demo_runs_to_its_end_and_leaves_no_process() -> None:
    shown = subprocess.run(
        [sys.executable, str(DEMO)], env=environment(), capture_output=True, text=True, timeout=110
    )
    assert shown.returncode == 0, shown.stderr
    assert "cancelled after 24 pieces" in shown.stdout
    assert "prefix hit rate" in shown.stdout
    server = re.search(r"process (\d+)\) has ended with exit code 0", shown.stdout)
    assert server is not None
    with pytest.raises(ProcessLookupError):
        os.kill(int(server[1]), 0)
