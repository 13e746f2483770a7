"""A runner with the real model, which holds few prompts: it has two slots, and no other cache."""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop

from penstock import Runtime, engines
from penstock.engine_commands import serve_engine
from penstock.runner.runner import Runner
from penstock.runtime.app import App

OPTIONS = {"slots": 2, "context_tokens": 1024, "prompt_cache_mib": 0}


async def run(url: str, name: str) -> None:
    """Serve until standard input ends."""
    rt = Runtime()
    serve_engine(rt, engines.open("llamacpp:smollm2-135m", **OPTIONS))
    async with Runner(App(rt), [url], name):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--name", required=True)
    args = parser.parse_args()
    uvloop.run(run(args.gateway, args.name))
