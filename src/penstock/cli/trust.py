"""Whom a verb trusts that dials a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.exits import Exit, fail

if TYPE_CHECKING:
    import ssl

Ca = Annotated[
    Path | None,
    typer.Option(envvar="PENSTOCK_CA", help="Certificates, PEM, that are trusted instead of the machine's."),
]


def trusting(ca: Path | None) -> ssl.SSLContext | None:
    """Return what a server's certificate is judged by; None is by those that the machine trusts.

    Raises:
        typer.Exit: There are no certificates in the file.
    """
    if ca is None:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        fail(f"--ca {ca}: no certificates can be read there ({error.strerror or error})", Exit.USAGE)
