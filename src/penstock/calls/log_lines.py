"""Log records as lines of JSON, for whatever collects them."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from penstock.calls import ambient


class JsonLines(logging.Formatter):
    """Writes each record as one object on one line: ``time``, ``level``, ``logger``, ``message``, and where
    they are known ``process``, ``request_id``, ``command`` and ``exception``.

    Args:
        process: The name of the process, if there are several.
    """

    def __init__(self, process: str | None = None) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        call = ambient.current.get()
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": self._process,
            "request_id": getattr(record, "request_id", None) or (call and call.request_id),
            "command": getattr(record, "command", None) or getattr(call, "command", None),
            "exception": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in told.items() if value}, default=str)


def writes_json() -> bool:
    """Whether this process logs lines of JSON, as processes below it should then as well."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)
