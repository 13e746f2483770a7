"""Labels of runners, as they are written on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.cli.exits import Exit, fail


def read_labels(given: Sequence[str] | None) -> dict[str, str]:
    """Return what was given as ``name=value``.

    Raises:
        typer.Exit: Something was written in another way.
    """
    labels: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"--label {text}: write it as name=value", Exit.USAGE)
        labels[name] = value
    return labels
