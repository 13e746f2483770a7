"""How the failure of an author's code is logged: with its traceback, and without what its caller said."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable

from penstock.calls.live import Live
from penstock.calls.masking import masked, secrets_of


def log_failure(
    log: logging.Logger, level: int, error: BaseException, live: Live, given: Iterable[object], message: str
) -> None:
    """Log an exception of a call's code.

    Args:
        log: Where.
        level: Of the record.
        error: What was raised.
        live: The call.
        given: What its caller has given it.
        message: What stands above the traceback; it takes the request id and the command.
    """
    if not log.isEnabledFor(level):
        return
    told = "".join(traceback.format_exception(error)).rstrip("\n")
    about = {"request_id": live.request_id, "command": live.start.target}
    values = (live.request_id, live.start.target)
    record = log.makeRecord(log.name, level, __file__, 0, message, values, None, extra=about)
    record.exc_text = masked(told, secrets_of(live, given))  # which formatters take as it is
    log.handle(record)
