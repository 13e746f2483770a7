"""penstock behind a gateway: the commands of `penstock_app.py` on one runner, which is a process of its own.

The gateway stays on the server's core; the runner may use the load's core as well, as it is on another
machine where it matters.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys

import uvloop
from hosting import pin_to_core, say_ready
from penstock_app import rt

from penstock.calls.tasks import TaskOwner
from penstock.compose import build_gateway
from penstock.observability.exposition import Exposition
from penstock.observability.recorder import Recorder
from penstock.runner.runner import Runner
from penstock.runtime.app import App
from penstock.server.host import Host
from penstock.server.settings import ServerSettings


async def run(url: str) -> None:
    """Be the runner, until the gateway has ended."""
    async with Runner(App(rt), [url], "one") as runner:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.aclose()


def start_runner(url: str) -> subprocess.Popen[bytes]:
    """Start the runner's process, which ends with this one."""
    own = [sys.executable, __file__, "--runner", url.replace("http", "ws")]
    cores = set(range(os.cpu_count() or 1))
    return subprocess.Popen(own, stdin=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cores))


async def serve() -> None:
    """Be the gateway, with a runner that has dialled it."""
    recorder = Recorder()  # metrics are on, as they are in `penstock gateway`
    settings = ServerSettings(port=0)
    hub, extension = build_gateway("gateway", settings, observer=recorder)
    runners: list[subprocess.Popen[bytes]] = []
    ports: list[int] = []

    def ready(url: str) -> None:
        ports.append(int(url.rpartition(":")[2]))
        runners.append(start_runner(url))

    host = Host(hub, settings, ready, Exposition(recorder), extension)
    tasks = TaskOwner()
    serving = tasks.start(host.serve(), name="gateway")
    while not any(runner.takes for runner in hub.runners):  # noqa: ASYNC110 - a benchmark may look
        await asyncio.sleep(0.01)
    say_ready(ports[0])
    await serving
    for runner in runners:
        assert runner.stdin is not None
        runner.stdin.close()
        runner.wait()


if __name__ == "__main__":
    if "--runner" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--runner", required=True)
        uvloop.run(run(parser.parse_args().runner))
    else:
        pin_to_core()
        uvloop.run(serve())
