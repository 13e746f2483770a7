"""Runs every workload against every contender, interleaved, and keeps the raw results.

    python benchmarks/run.py [--repeats 5] [--seconds 2] [--only NAME] [--peers all] [--out DIR]

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
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from peering import free_port, named, prepare, python_of, versions_of, wait_until_it_answers
from processes import end
from workloads import HERE, WORKLOADS, Contender, Workload

from penstock.engines.store import ModelStore
from penstock.errors import CallError

SERVER_CORE, LOAD_CORE = 0, 1
WARM_UP_S = 0.5
WARM_UP_PER_CONNECTION_S = 0.002
LONGEST_S = 120.0  # that a load may take beside its measurement


@dataclass(frozen=True)
class Server:
    """A contender's app, running."""

    pid: int = 0
    port: int = 0
    versions: dict[str, str] = field(default_factory=dict)


class NoResult(Exception):
    """A measurement gave nothing; what it said itself is on the terminal."""


@contextmanager
def running(contender: Contender) -> Iterator[Server]:
    """Run a contender's app until the block is left.

    Raises:
        NoResult: It did not start.
    """
    if not contender.app:
        yield Server()
    elif contender.app == "peer":
        with running_peer(contender) as server:
            yield server
    else:
        command = [python_for(contender.peer), str(HERE / "apps" / contender.app), "--core", str(SERVER_CORE)]
        with process(command) as started:
            assert started.stdout is not None
            line = started.stdout.readline()
            if not line:
                raise NoResult(f"{contender.app} did not start; what it said is above")
            ready = json.loads(line)
            yield Server(started.pid, ready["port"], ready["versions"])


@contextmanager
def running_peer(contender: Contender) -> Iterator[Server]:
    """Run a peer's app on its own interpreter, on the server's core or on both."""
    port = free_port()
    command = [str(python_of(contender.peer)), str(HERE / "peers" / contender.peer / "app.py")]
    cores = {SERVER_CORE, LOAD_CORE} if contender.both_cores else {SERVER_CORE}
    with process([*command, f"--port={port}"], cores) as started:
        try:
            wait_until_it_answers(started, port, f"/{contender.command}")
        except TimeoutError as error:
            raise NoResult(f"{contender.name} did not start: {error}") from error
        yield Server(started.pid, port, versions_of(contender.peer))


@contextmanager
def process(command: list[str], cores: set[int] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a process, and end it with all that it started."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or own)  # what is started inherits it
    try:
        started = subprocess.Popen(command, stdout=subprocess.PIPE if cores is None else 2, text=True)
    finally:
        os.sched_setaffinity(0, own)
    with started:
        try:
            yield started
        finally:
            end(started)


def python_for(peer: str) -> str:
    """Return the interpreter of a peer: its own environment's if it has one, else this one."""
    own = python_of(peer)
    return str(own) if peer and own.is_file() else sys.executable


def measure(
    server: Server, workload: Workload, contender: Contender, connections: int, seconds: float
) -> dict[str, Any]:
    """Run the load once.

    Raises:
        NoResult: An answer was wrong, or there was none.
    """
    options = {
        "port": server.port,
        "server-pid": server.pid,
        "command": contender.command,
        "form": contender.form,
        "items": workload.items,
        "connections": connections,
        "calls": workload.calls,
        "seconds": seconds,
        "warm-up": WARM_UP_S + connections * WARM_UP_PER_CONNECTION_S,
        "core": LOAD_CORE if contender.app else SERVER_CORE,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, str(HERE / workload.load), *flags]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, timeout=seconds * 10 + LONGEST_S
        )
    except subprocess.TimeoutExpired:
        raise NoResult("the load did not end") from None
    if done.returncode:
        raise NoResult("what was wrong is above")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Run:
    """One run of everything.

    Args:
        workloads: What is run.
        seconds: How long each measurement takes.
    """

    def __init__(self, workloads: list[Workload], seconds: float) -> None:
        self._workloads = workloads
        self._seconds = seconds
        self._servers: dict[str, Server] = {}
        self.samples: list[dict[str, Any]] = []
        self.versions: dict[str, dict[str, str]] = {}
        self.without: dict[str, str] = {}  # peers that gave no result, and why

    def run(self, repeats: int) -> None:
        """Run all: every repeat asks every contender in turn, so that they share what the machine does."""
        with ExitStack() as stack:
            for workload in self._workloads:
                for contender in workload.contenders:
                    if not workload.fresh and contender.app and contender.app not in self._servers:
                        self._servers[contender.app] = stack.enter_context(running(contender))
            for repeat in range(repeats):
                for workload in self._workloads:
                    self._repeat(repeat, workload)

    def _repeat(self, repeat: int, workload: Workload) -> None:
        for connections in workload.connections:
            for contender in workload.contenders:
                if contender.asked_with(connections) and contender.peer not in self.without:
                    self._one(repeat, workload, contender, connections)

    def _one(self, repeat: int, workload: Workload, contender: Contender, connections: int) -> None:
        shared = nullcontext(self._servers.get(contender.app, Server()))
        try:
            with running(contender) if workload.fresh else shared as server:
                result = measure(server, workload, contender, connections, self._seconds)
        except NoResult as error:
            if contender.app != "peer":
                sys.exit(f"{contender.name} in {workload.name} with {connections}: {error}")
            self.without[contender.peer] = str(error)
            print(f"{contender.name} is left out: {error}", file=sys.stderr)
            return
        if server.versions:
            self.versions[contender.peer if contender.app == "peer" else contender.app] = server.versions
        key = {"workload": workload.name, "contender": contender.name, "repeat": repeat}
        self.samples.append({**key, "connections": connections, **result})
        print(one_line(self.samples[-1]), file=sys.stderr)


def one_line(sample: dict[str, Any]) -> str:
    """Return a sample for whoever watches."""
    who = f"{sample['repeat']} {sample['workload']:<17} {sample['contender']:<18} {sample['connections']:>4} "
    if "felt_ms" in sample:
        return f"{who}p50 {median(sample['felt_ms']):.2f} ms, at most {max(sample['felt_ms']):.2f} ms"
    shown = (
        "tokens_per_s",
        "paced_tokens_per_s",
        "requests_per_s",
        "idle_kb_per_socket",
        "used_kb_per_socket",
        "above_us",
        "call_us",
    )
    times = ("first_item_ms", "gap_ms", "load_lag_ms", "start_ms")
    parts = [f"{name} {sample[name]:,}" for name in shown if sample.get(name)]
    parts += [f"{name} {sample[name]['p50']} {sample[name]['p99']}" for name in times if name in sample]
    parts += [f"{name} {sample[name]:.2f}" for name in ("server_cpu", "load_cpu") if name in sample]
    return who + "  ".join(parts)


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

    written = (":!README.md", ":!chart.svg", ":!results")  # by the run before
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src", ".", *written)
    return {"hash": git("rev-parse", "HEAD").strip(), "changed": bool(changed.strip())}


def folder_for(where: dict[str, Any], what: dict[str, Any]) -> Path:
    """Return where the results of a commit on a machine are kept."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{where['cpu']} {where['cores']} cores".lower()).strip("-")
    return HERE / "results" / name / (what["hash"][:12] + ("-changed" if what["changed"] else ""))


def as_text(results: dict[str, Any]) -> str:
    """Return results as JSON, each sample on a line."""
    samples = ",\n".join(json.dumps(sample) for sample in results["samples"])
    head = json.dumps({name: of for name, of in results.items() if name != "samples"}, indent=1)
    return f'{head[:-2]},\n "samples": [\n{samples}\n]\n}}\n'


def chosen(only: list[str] | None, peers: list[str]) -> list[Workload]:
    """Return the workloads that are asked for, with the peers that are there."""
    found = [workload for workload in WORKLOADS if not only or workload.name in only]

    def stays(contender: Contender) -> bool:
        return contender.app != "peer" or contender.peer in peers

    return [replace(one, contenders=tuple(filter(stays, one.contenders))) for one in found if has_model(one)]


def has_model(workload: Workload) -> bool:
    """Whether the model that a workload needs is here."""
    try:
        return not workload.model or bool(ModelStore().resolve(workload.model))
    except CallError as error:
        print(f"{workload.name} is left out: {error.message}", file=sys.stderr)
        return False


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, behind its warm-up")
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--only", choices=names, action="append", help="may be given several times")
    parser.add_argument("--peers", type=named, default="starlette,aiohttp", help="names, or `all`, or `none`")
    parser.add_argument("--out", type=Path, help="a folder; default: results/<machine>/<commit>")
    return parser


def main() -> None:
    """Run what was asked for and write it down."""
    args = arguments().parse_args()
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        sys.exit("the benchmarks need Linux and two cores: one for the server, one for the load")
    began, where, what = time.monotonic(), machine(), commit()
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    failed = prepare(args.peers)
    runs = Run(chosen(args.only, [name for name in args.peers if name not in failed]), args.seconds)
    runs.run(args.repeats)
    settings = {"repeats": args.repeats, "seconds": args.seconds}
    results = {"when": when, "machine": where, "commit": what, "settings": settings}
    results |= {"versions": runs.versions, "without": failed | runs.without, "samples": runs.samples}
    folder = args.out or folder_for(where, what)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(as_text(results))
    print(f"wrote {folder / 'results.json'} in {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
