"""Ctrl-C as something that is looked at, where an exception at any step would come too early or too late."""

from __future__ import annotations

import signal
from concurrent.futures import Future, wait
from types import FrameType
from typing import Any

from typing_extensions import Self

SLICE_S = 0.05


class Interrupts:
    """Counts how often Ctrl-C was pressed within its block, in the main thread, instead of raising."""

    def __init__(self) -> None:
        self.count = 0
        self._former: Any = None

    def __enter__(self) -> Self:
        self._former = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._former)

    def end_first(self, work: Future[Any], after: int = 0) -> bool:
        """Wait until ``work`` ends, which gives True, or Ctrl-C is pressed more than ``after`` times."""
        while not work.done():
            if self.count > after:
                return False
            wait((work,), timeout=SLICE_S)
        return True

    def _note(self, _: int, __: FrameType | None) -> None:
        self.count += 1
