"""Penstock commands in processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio

START_S = 60.0


class Running(NamedTuple):
    """A process, and the first line that it printed."""

    process: asyncio.subprocess.Process
    line: str


@asynccontextmanager
async def process(*arguments: object, settings: Mapping[str, str]) -> AsyncIterator[Running]:
    """A penstock command that runs until it ends by itself, or the block does."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock.cli", *map(str, arguments)),
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert running.stdout is not None
        with anyio.fail_after(START_S):
            line = await running.stdout.readline()
        assert line, "it ended before it was ready"
        yield Running(running, line.decode())
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
