"""How a verb ends: its exit codes, and its last words on standard error."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import NoReturn

import typer


class Exit(IntEnum):
    """Exit codes of every verb."""

    CLEAN = 0
    FAILED = 1  # the start-up, the call or the model
    USAGE = 2
    NO_SERVER = 3
    INTERRUPTED = 130


def fail(message: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Say what happened and leave.

    Raises:
        typer.Exit: Always.
    """
    print(f"penstock: {message}", file=sys.stderr)
    raise typer.Exit(code)
