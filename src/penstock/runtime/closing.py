"""Closing what author code opened: one thing that fails must not keep the rest from being closed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable

_log = logging.getLogger("penstock.closing")


async def close(what: str, closer: Callable[[], object]) -> None:
    """Call ``closer`` and await what it returns, if that can be awaited; an exception is logged.

    Args:
        what: Names the thing in the log.
    """
    try:
        result = closer()
        if inspect.isawaitable(result):
            await result
    except Exception:  # noqa: BLE001 - author code at the end of the process; the rest must still be closed
        _log.exception("closing %s failed", what)
