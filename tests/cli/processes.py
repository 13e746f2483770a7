"""Penstock commands in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 60

Penstock = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[..., "Server"]

TINY = """
import asyncio

from penstock import CommandError, Runtime, current_call, engines

rt = Runtime("manifest.yml")


@rt.command("initialize")
def initialize():
    return {"engine": engines.open("scripted:text=Once upon a time")}


@rt.streaming_command("predict")
async def predict(prompt: str, engine=None):
    async for piece in engine.stream_text(prompt):
        yield {"chunk": piece}


@rt.streaming_command("count")
async def count(to: int):
    for number in range(to):
        yield {"number": number}


@rt.command("add")
def add(a: int, b: int):
    return {"sum": a + b}


@rt.command("echo")
def echo(text: str):
    return text


@rt.command("refuse")
def refuse():
    raise CommandError("not today")


@rt.streaming_command("hold")
async def hold():
    yield {"chunk": "holding"}
    print("holding", current_call().task_id, flush=True)
    await asyncio.Event().wait()
"""


class Server:
    """A running `penstock run`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.ready_line = process.stdout.readline().strip()
        found = re.search(r"https?://\S+", self.ready_line)
        assert found, f"the server did not get ready: {process.communicate(timeout=PATIENCE_S)}"
        self.url = found.group()
        self.urls: list[str] = re.findall(r"https?://\S+", self.ready_line)

    def wait_for(self, line: str) -> None:
        """Read what the server prints until it prints ``line``."""
        assert self.process.stdout is not None
        assert any(printed.strip() == line for printed in self.process.stdout), f"never printed: {line}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, less what would change the command line's behaviour."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    cache = {name: value for name, value in os.environ.items() if name == "PENSTOCK_CACHE"}
    return kept | cache | {"COLUMNS": "200", "NO_COLOR": "1"} | more


def command(*arguments: object) -> list[str]:
    """Return the command line of a penstock command under this interpreter."""
    return [sys.executable, "-m", "penstock.cli", *map(str, arguments)]


def start(*arguments: object, **env: str) -> subprocess.Popen[str]:
    """Start a penstock command."""
    return subprocess.Popen(
        command(*arguments),
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def started(*arguments: object, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Start a penstock command, and end it on leaving if it has not ended."""
    with start(*arguments, **env) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
