"""Logging of the command line: text on standard error."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_stderr() -> None:
    """Show warnings, and what penstock and its projects say of their own work."""
    logging.basicConfig(format=FORMAT, level=logging.WARNING)
    logging.getLogger("penstock").setLevel(logging.INFO)
