"""Cores a process may use, as Linux tells them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.engines.cores import usable_cores


def machine(root: Path, siblings: dict[int, str], quota: str | None = None) -> Path:
    for cpu, text in siblings.items():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text)
    if quota is not None:
        (root / "sys/fs/cgroup").mkdir(parents=True)
        (root / "sys/fs/cgroup/cpu.max").write_text(quota)
    return root


FOUR_CORES = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}


@pytest.mark.parametrize(
    ("cpus", "quota", "cores"),
    [
        (range(8), None, 4),
        (range(8), "max 100000\n", 4),
        (range(8), "250000 100000\n", 2),
        (range(8), "50000 100000\n", 1),
        (range(8), "900000 100000\n", 4),
        (range(8), "nonsense", 4),
        ([0, 4], None, 1),
        ([0, 1], None, 2),
    ],
)
def test_cores_are_those_of_the_mask_and_the_quota(
    tmp_path: Path, cpus: list[int], quota: str | None, cores: int
) -> None:
    assert usable_cores(machine(tmp_path, FOUR_CORES, quota), cpus) == cores


def test_a_system_that_does_not_tell_counts_cpus(tmp_path: Path) -> None:
    assert usable_cores(tmp_path, [0, 1, 2]) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_this_machine_has_some() -> None:
    assert (usable_cores() or 0) >= 1
