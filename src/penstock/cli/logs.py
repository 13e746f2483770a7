"""Logging of the command line: on standard error, as text or as lines of JSON."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Annotated

import typer

from penstock.calls.log_lines import set_up_logs


class LogForm(str, Enum):
    """How log records are written."""

    TEXT = "text"
    JSON = "json"


LogFormat = Annotated[
    LogForm, typer.Option(envvar="PENSTOCK_LOG_FORMAT", help="Log as text, or as one object of JSON a line.")
]


def log_to_stderr(form: LogForm = LogForm.TEXT) -> None:
    """Show warnings, and what penstock and its projects say of their own work."""
    set_up_logs(as_json=form is LogForm.JSON)
    logging.getLogger("penstock").setLevel(logging.INFO)
