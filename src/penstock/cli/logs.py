"""Logging of the command line: on standard error, as text or as lines of JSON."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Annotated

import typer

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogForm(str, Enum):
    """How log records are written."""

    TEXT = "text"
    JSON = "json"


LogFormat = Annotated[
    LogForm, typer.Option(envvar="PENSTOCK_LOG_FORMAT", help="Log as text, or as one object of JSON a line.")
]


def log_to_stderr(form: LogForm = LogForm.TEXT) -> None:
    """Show warnings, and what penstock and its projects say of their own work."""
    logging.basicConfig(format=FORMAT, level=logging.WARNING)
    logging.getLogger("penstock").setLevel(logging.INFO)
    if form is LogForm.JSON:
        from penstock.calls.log_lines import JsonLines

        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines())
