"""Runs every workload against every contender, interleaved, and keeps the raw results.

    python benchmarks/run.py [--repeats 5] [--seconds 2] [--only NAME] [--out DIR]

The servers run on one core and the load on another; METHOD.md says how and why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from workloads import HERE, WORKLOADS, Contender, Workload

SERVER_CORE, LOAD_CORE = 0, 1
START_TIMEOUT_S = 30


@dataclass(frozen=True)
class Server:
    """A contender's app, running."""

    pid: int
    port: int
    versions: dict[str, str]


@contextmanager
def running(contender: Contender) -> Iterator[Server]:
    """Run a contender's app until the block is left."""
    command = [python_for(contender.peer), str(HERE / "apps" / contender.app), "--core", str(SERVER_CORE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                sys.exit(f"{contender.app} did not start; what it said is above")
            ready = json.loads(line)
            yield Server(process.pid, ready["port"], ready["versions"])
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


def python_for(peer: str) -> str:
    """Return the interpreter of a peer: its own environment's if it has one, else this one."""
    own = HERE / "peers" / peer / ".venv" / "bin" / "python"
    return str(own) if peer and own.is_file() else sys.executable


def measure(
    server: Server, workload: Workload, contender: Contender, connections: int, seconds: float
) -> dict[str, Any]:
    """Run the load once; a wrong answer ends everything."""
    options = {
        "port": server.port,
        "server-pid": server.pid,
        "command": contender.command,
        "items": workload.items,
        "connections": connections,
        "seconds": seconds,
        "core": LOAD_CORE,
        **({} if workload.calls == 1 else {"calls": workload.calls}),
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [sys.executable, str(HERE / workload.load), *flags], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{contender.name} in {workload.name} at {connections} connections: no result")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(workloads: list[Workload], repeats: int, seconds: float) -> dict[str, Any]:
    """Run all: every repeat asks every contender in turn, so that they share what the machine does."""
    samples: list[dict[str, Any]] = []
    with ExitStack() as stack:
        apps = {c.app: c for workload in workloads for c in workload.contenders}
        servers = {app: stack.enter_context(running(contender)) for app, contender in apps.items()}
        for repeat in range(repeats):
            for workload in workloads:
                for connections in workload.connections:
                    for contender in workload.contenders:
                        shared = nullcontext(servers[contender.app])
                        with running(contender) if workload.fresh else shared as server:
                            result = measure(server, workload, contender, connections, seconds)
                        key = {"workload": workload.name, "contender": contender.name, "repeat": repeat}
                        samples.append({**key, "connections": connections, **result})
                        print(one_line(samples[-1]), file=sys.stderr)
        versions = {app: server.versions for app, server in servers.items()}
    return {"versions": versions, "samples": samples}


def one_line(sample: dict[str, Any]) -> str:
    """Return a sample for whoever watches."""
    who = f"{sample['repeat']} {sample['workload']:<14} {sample['contender']:<18} {sample['connections']:>4} "
    if "idle_kb_per_socket" in sample:
        idle, used = sample["idle_kb_per_socket"], sample["used_kb_per_socket"]
        return f"{who}{idle} KB per idle socket, {used} KB after a call"
    rate = f"{sample['tokens_per_s']:>10,} tokens/s" if sample["items"] else " " * 19
    return (
        f"{who}{rate} {sample['requests_per_s']:>9,.0f} requests/s  p50 {sample['first_item_ms']['p50']} ms  "
        f"cpu {sample['server_cpu']:.2f} {sample['load_cpu']:.2f}"
    )


def machine() -> dict[str, Any]:
    """Describe where this runs, without naming the machine."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def commit() -> dict[str, Any]:
    """Return the commit that was measured, and whether files differed from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(HERE), *words], stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src", ".")
    return {"hash": git("rev-parse", "HEAD").strip(), "changed": bool(changed.strip())}


def folder_for(when: str, where: dict[str, Any]) -> Path:
    """Return where the results of a day on a machine are kept."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{where['cpu']} {where['cores']} cores".lower()).strip("-")
    return HERE / "results" / f"{when[:10]}-{name}"


def main() -> None:
    """Run what was asked for and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, behind its warm-up")
    parser.add_argument("--only", choices=[workload.name for workload in WORKLOADS])
    parser.add_argument("--out", type=Path, help="a folder; default: results/<date>-<machine>")
    args = parser.parse_args()
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        sys.exit("the benchmarks need Linux and two cores: one for the server, one for the load")
    where, when, what = machine(), datetime.now(timezone.utc).isoformat(timespec="seconds"), commit()
    chosen = [workload for workload in WORKLOADS if args.only in (None, workload.name)]
    settings = {"repeats": args.repeats, "seconds": args.seconds}
    results = {"when": when, "machine": where, "commit": what, "settings": settings}
    results |= run(chosen, args.repeats, args.seconds)
    folder = args.out or folder_for(when, where)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {folder / 'results.json'}", file=sys.stderr)


if __name__ == "__main__":
    main()
