"""A penstock command at a terminal of its own, which is typed at and read."""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cli.processes import PATIENCE_S, environment

CTRL_C = "\x03"
CTRL_D = "\x04"

# The terminal has to be the session's own, else Ctrl-C is a letter like others.
PROGRAM = (
    "import fcntl, runpy, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "runpy.run_module('penstock.cli', run_name='__main__')"
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Terminal:
    """What a command shows, and what is typed at it."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._unread = ""

    def type(self, text: str) -> None:
        """Press the keys of ``text``."""
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until ``text`` is shown; returns what was shown before it."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self._unread:
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} was never shown, but {self._unread!r}"
            self._unread = CONTROL.sub("", self._unread + self._decode(os.read(self._master, 4096)))
        before, _, self._unread = self._unread.partition(text)
        return before

    def end(self) -> int:
        """Wait until the command has ended; returns its exit code."""
        return self.process.wait(PATIENCE_S)


@contextmanager
def at_terminal(*arguments: object, **env: str) -> Iterator[Terminal]:
    """Start a command at a terminal, and end it on leaving if it has not ended."""
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            env=environment(**{"TERM": "dumb", **env}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        ) as process:
            try:
                yield Terminal(process, master)
            finally:
                if process.poll() is None:
                    process.kill()
    finally:
        os.close(master)
        os.close(slave)
