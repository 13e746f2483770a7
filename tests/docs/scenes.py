"""Plays what a page shows: its blocks of shell and Python, in their order, in one folder, beside one server.

The words behind a fence say how: ``sh serve`` starts a server, whose address takes the place of
``http://127.0.0.1:8000`` from there on; ``sh run`` and ``python run`` must succeed; ``sh begin`` is left
running, once it has said something, and must have ended by itself when the page is over.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from cli.processes import PATIENCE_S, environment
from docs.pages import Fence

PLAYED = ("run", "serve", "begin")
WRITTEN = "http://127.0.0.1:8000"


def played(fence: Fence) -> bool:
    """Whether a block is part of a scene."""
    kind, _, way = fence.info.partition(" ")
    return kind in ("sh", "python") and way in PLAYED


class Scene:
    """A folder, and what runs in it.

    Args:
        folder: An empty one.
        url: Of a server that is there already.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self.said: list[str] = []
        self._folder = folder
        self._url = url
        self._begun: list[subprocess.Popen[str]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, fence: Fence) -> None:
        """Do what a block says."""
        kind, _, way = fence.info.partition(" ")
        if way == "serve":
            self._serve(shlex.split(fence.body))
        elif way == "begin":
            self._begin(self._here(fence.body))
        else:
            program = [sys.executable, "-c"] if kind == "python" else ["bash", "-euo", "pipefail", "-c"]
            self._run([*program, self._here(fence.body)], fence.place)

    def finish(self) -> None:
        """See that what was begun has ended."""
        for process in self._begun:
            said, _ = process.communicate(timeout=PATIENCE_S)
            self.said.append(said)

    def _here(self, text: str) -> str:
        return text.replace(WRITTEN, self._url)

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return environment(PATH=path, PENSTOCK_URL=self._url, HOME=str(self._folder))

    def _run(self, command: list[str], place: str) -> None:
        ran = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ran.returncode == 0, f"{place}: {ran.stdout}\n{ran.stderr}"
        self.said.append(ran.stdout)

    def _serve(self, words: list[str]) -> None:
        process = self._start([*words, "--port", "0"])
        assert process.stdout is not None
        ready = process.stdout.readline()
        found = re.search(r"https?://[^\s,]+", ready)
        assert found, f"no server: {ready}"
        self._url = found.group()

    def _begin(self, text: str) -> None:
        process = self._start(["bash", "-euo", "pipefail", "-c", text])
        assert process.stdout is not None
        self.said.append(process.stdout.readline())
        self._begun.append(process)

    def _start(self, words: list[str]) -> subprocess.Popen[str]:
        process = self._stack.enter_context(
            subprocess.Popen(
                words,
                cwd=self._folder,
                env=self._environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        )
        self._stack.callback(_end, process)
        return process


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
