"""What measures the clients runs, and tells of each of them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from house.package import ROOT

SCRIPT = ROOT / "benchmarks" / "clients.py"


@pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not here")
def test_each_client_is_measured_beside_a_bare_one() -> None:
    command = [sys.executable, str(SCRIPT), "--items", "500", "--rounds", "1"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=100).stdout
    rows = re.findall(r"^(\w+(?:, \w+)?) +([\d,]+) items/s +(\d+\.\d\d) of the bare", said, re.MULTILINE)
    names = ["AsyncClient, http", "Client, http", "AsyncClient, ws", "Client, ws"]
    assert [name for name, *_ in rows] == ["httpx", *names[:2], "websockets", *names[2:]], said
    assert [float(ratio) for name, _, ratio in rows if name in ("httpx", "websockets")] == [1.0, 1.0]
