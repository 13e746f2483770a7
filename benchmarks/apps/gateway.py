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


async def serve() -> None:
    """Be the gateway, with a runner that has dialled it."""
    recorder = Recorder()
    settings = ServerSettings(port=0)
    hub, extension = build_gateway("gateway", settings, observer=recorder)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    host = Host(hub, settings, address.set_result, Exposition(recorder), extension)
    serving = asyncio.get_running_loop().create_task(host.serve())
    url = await address
    own = [sys.executable, __file__, "--runner", url.replace("http", "ws")]
    every = os.sched_getaffinity(0) if len(os.sched_getaffinity(0)) > 1 else set(range(os.cpu_count() or 1))
    runner = subprocess.Popen(own, stdin=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, every))
    while not any(each.takes for each in hub.runners):
        await asyncio.sleep(0.01)
    say_ready(int(url.rpartition(":")[2]))
    try:
        await serving
    finally:
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
