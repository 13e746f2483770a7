"""Finds commands that hold the event loop.

An `async def` that blocks stops every other call, the probes too, and nothing tells whose fault it is.  A
thread asks the loop for a sign of life while calls are in flight; when none comes it looks at what the loop's
thread is doing and names the command.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterable
from functools import partial
from types import CodeType, FrameType

from penstock.calls.observer import NOBODY, Observer
from penstock.runtime.command import Command
from penstock.runtime.threads import tell

_log = logging.getLogger("penstock.watchdog")

HELD_S = 0.1  # held this long, a loop is worth a warning
PAUSE_S = 0.05  # between two looks
AGAIN_S = 10.0  # one warning per command in this time


class Watchdog:
    """Watches one event loop while it is busy.

    Args:
        commands: Those that run on the loop.
        observer: Is told how long the loop takes to give each sign.
        held_s: Warn after this many seconds.
    """

    def __init__(
        self, commands: Iterable[Command], observer: Observer = NOBODY, held_s: float = HELD_S
    ) -> None:
        self._observer = observer
        self._names = {code: command.name for command in commands if (code := _code(command)) is not None}
        self._held_s = held_s
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._busy = threading.Event()
        self._alive = threading.Event()
        self._closed = threading.Event()
        self._warned: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, name="penstock-watchdog", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Watch from now on, until ``rest``."""
        if not self._busy.is_set():
            self._busy.set()

    def rest(self) -> None:
        """Stop watching: nothing is in flight."""
        self._busy.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._busy.set()
        self._alive.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._busy.wait():
            self._alive.clear()
            if self._closed.is_set():  # looked at after the clear, which may have undone what `close` set
                return
            tell(self._loop, partial(self._turned, time.monotonic()))
            self._look(time.monotonic())
            self._alive.wait()
            self._closed.wait(PAUSE_S)

    def _turned(self, asked: float) -> None:
        self._alive.set()
        self._observer.turned(time.monotonic() - asked)

    def _look(self, since: float) -> None:
        """Warn of a command that runs both times: a loop that has very much to do is late as well, but then
        it is another call's turn each time."""
        if self._alive.wait(self._held_s / 2):
            return
        before = self._command()
        if not self._alive.wait(self._held_s / 2):
            frame = self._command()
            if frame is not None and frame is before:
                self._warn(frame, since)

    def _warn(self, frame: FrameType, since: float) -> None:
        name = self._names[frame.f_code]
        if time.monotonic() - self._warned.get(name, -AGAIN_S) < AGAIN_S:
            return
        self._warned[name] = time.monotonic()
        _log.warning(
            "command %r has held the event loop for %d ms at %s: every other call waits meanwhile. "
            "Await what takes long, or set `isolation: thread` for the command.",
            name,
            (time.monotonic() - since) * 1000,
            f"{frame.f_code.co_filename}:{frame.f_lineno}",
        )

    def _command(self) -> FrameType | None:
        """Return where the loop's thread is in a command's code, if it is."""
        frame = sys._current_frames().get(self._loop_thread)
        while frame is not None and frame.f_code not in self._names:
            frame = frame.f_back
        return frame


def _code(command: Command) -> CodeType | None:
    function = getattr(command.function, "func", command.function)
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
