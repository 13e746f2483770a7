"""Lines typed while a screen is drawn: the terminal shows none of it by itself."""

from __future__ import annotations

import os
import select
import sys
import time
from types import TracebackType

if sys.platform != "win32":  # which has neither; nothing can be typed there
    import termios
    import tty

_ERASE = ("\x7f", "\b")
_SIZE = 1024


class Keyboard:
    """What is typed on standard input; nothing, where that is no terminal.

    Attributes:
        typed: The line so far.
    """

    def __init__(self) -> None:
        self.typed = ""
        can_type = sys.platform != "win32" and sys.stdin.isatty()
        self._descriptor = sys.stdin.fileno() if can_type else None
        self._lines: list[str] = []

    def __enter__(self) -> Keyboard:
        if self._descriptor is not None:
            self._before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def read_line(self, timeout_s: float) -> str | None:
        """Return a line once it is complete; None after a time, or as soon as the line has changed.

        Raises:
            EOFError: The terminal has gone.
        """
        if self._descriptor is None:
            time.sleep(timeout_s)
            return None
        if not self._lines and select.select([self._descriptor], [], [], timeout_s)[0]:
            self._take(os.read(self._descriptor, _SIZE).decode(errors="replace"))
        return self._lines.pop(0) if self._lines else None

    def _take(self, keys: str) -> None:
        if not keys:
            raise EOFError
        for key in keys:
            if key in "\r\n":
                self._lines.append(self.typed.strip())
                self.typed = ""
            elif key in _ERASE:
                self.typed = self.typed[:-1]
            elif key.isprintable():
                self.typed += key
