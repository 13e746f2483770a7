"""How many CPU cores this process may really use.

llama.cpp counts those of the machine.  Where a container or an affinity mask leaves fewer, its threads wait
for each other in turns, and a model runs ten times slower than on a single thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def usable_cores(root: Path = Path("/"), cpus: Iterable[int] | None = None) -> int | None:
    """Physical cores of the CPUs this process may run on, less what a container's quota takes away.

    Args:
        root: Where ``sys`` is mounted.
        cpus: The numbers of those CPUs; by default the system is asked.

    Returns:
        At least 1; ``None`` on systems that do not say (all but Linux).
    """
    if cpus is None:
        if not hasattr(os, "sched_getaffinity"):
            return None
        cpus = os.sched_getaffinity(0)
    cores = len({_core_of(root, cpu) for cpu in cpus})
    quota = _quota(root)
    return max(1, cores if quota is None else min(cores, quota))


def _core_of(root: Path, cpu: int) -> str:
    # The threads of one core name each other; a system that does not tell has none.
    with suppress(OSError):
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    return str(cpu)


def _quota(root: Path) -> int | None:
    with suppress(OSError, ValueError):
        spent, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
        return int(spent) // int(period)
    return None
