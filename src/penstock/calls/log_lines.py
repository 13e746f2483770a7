"""How log records are written: as text, or as lines of JSON for whatever collects them.

Neither lets a record look like another one: what stands in it may be somebody else's.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from penstock.calls import ambient

_HTTP = ("httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "hpack")
TALKATIVE = (*_HTTP, "websockets", "uvicorn", "openai", "anthropic", "grpc", "mcp")
"""Libraries that log what goes over the wire, keys and prompts included, where a level lets them."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_INDENT = "\n    "


class TextLines(logging.Formatter):
    """Writes a record as text: its first line begins with the time, and no other line does.

    Args:
        process: The name of the process, if there are several.
    """

    def __init__(self, process: str | None = None) -> None:
        where = "" if process is None else f" [{process.replace('%', '%%')}]"
        super().__init__(f"%(asctime)s %(levelname)s{where} %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; one of a call names it."""
        text = super().format(record)
        request_id = about_call(record).get("request_id")
        if request_id and request_id not in text:
            first, end, rest = text.partition("\n")
            text = f"{first} (call {request_id}){end}{rest}"
        return _CONTROLS.sub(_escaped, text).replace("\n", _INDENT)


class JsonLines(logging.Formatter):
    """Writes each record as one object on one line: ``time``, ``level``, ``logger``, ``message``, and where
    they are known ``process``, ``request_id``, ``command``, ``x_request_id`` and ``exception``.

    Args:
        process: The name of the process, if there are several.
    """

    def __init__(self, process: str | None = None) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        raised = self.formatException(record.exc_info) if record.exc_info else None
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": self._process,
            **about_call(record),
            "exception": record.exc_text or raised,
        }
        return json.dumps({name: value for name, value in told.items() if value}, default=str)


def about_call(record: logging.LogRecord) -> Mapping[str, str | None]:
    """Return what a record says of its call: what was logged with it, else the call that its code runs in."""
    call = ambient.current.get()
    return {
        "request_id": getattr(record, "request_id", None) or (None if call is None else call.request_id),
        "command": getattr(record, "command", None) or getattr(call, "command", None),
        "x_request_id": None if call is None else call.metadata.get("x_request_id"),
    }


def set_up_logs(*, as_json: bool, level: int = logging.WARNING, process: str | None = None) -> None:
    """Have this process log to standard error.

    Args:
        as_json: As lines of JSON, not as text.
        level: The least that is shown of everybody.
        process: Its name, if there are several.
    """
    logging.basicConfig(level=level)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines(process) if as_json else TextLines(process))
    quiet_libraries()


def quiet_libraries() -> None:
    """Give each talkative library a level of its own: a project that lowers that of all does not let it
    speak."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def writes_json() -> bool:
    """Whether this process logs lines of JSON, as processes below it should then as well."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
