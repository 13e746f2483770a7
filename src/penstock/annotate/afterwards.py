"""What has to be done, and nobody has to wait for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Thread

_logger = logging.getLogger("penstock.annotate")


def afterwards(work: Callable[[], object], what: str) -> None:
    """Do something in a thread of its own; the end of the interpreter waits for it.

    On a machine that is busy, a disk or a process that is ending may take a tenth of a second, which whoever
    cancels a run should not feel.

    Args:
        work: What; a failure of it is logged.
        what: In words, such as ``closing a log``.
    """

    def run() -> None:
        try:
            work()
        except OSError as error:
            _logger.warning("%s failed: %s", what, error)

    Thread(target=run, name=f"penstock: {what}").start()
