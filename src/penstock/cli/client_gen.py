"""`penstock client-gen`: typed stubs of what a server or a project offers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.failure import describe_failure
from penstock.cli.trust import Ca, trusting

if TYPE_CHECKING:
    import ssl

    from penstock.client.stubs.types import Stubs

Source = Annotated[str, typer.Argument(help="A server's URL, or a project: a folder or a .py file.")]
Out = Annotated[Path, typer.Option(help="The file to write: .py or .ts.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if the file is out of date.")]


def client_gen(source: Source, out: Out, check: Check = False, ca: Ca = None) -> None:
    """Write a typed client: a method for each command and workflow, and the types of what goes in and out.

    penstock client-gen http://127.0.0.1:8000 --out storyteller.py
    """
    if out.suffix not in (".py", ".ts"):
        fail(f"{out} is neither .py nor .ts", Exit.USAGE)
    from penstock.errors import ConnectionFailed

    try:
        text = _written(_read(source, trusting(ca)), out.suffix)
    except ConnectionFailed as error:
        fail(error.message, Exit.NO_SERVER)
    except Exception as error:  # noqa: BLE001 - a project's own code may raise anything
        fail(describe_failure(error, Path(source)))
    if check:
        if not out.exists() or out.read_text(encoding="utf-8") != text:
            fail(f"{out} is out of date: `penstock client-gen {source} --out {out}` writes it anew")
        return
    out.write_text(text, encoding="utf-8")
    print(f"penstock: wrote {out}", file=sys.stderr)


def _read(source: str, tls: ssl.SSLContext | None) -> Stubs:
    from penstock.client.stubs.reading import read_offer
    from penstock.client.transport import Offer

    if "://" not in source:
        from penstock.compose import describe_project

        found = describe_project(Path(source))
        return read_offer(found.name, found.version, Offer(found.commands, found.workflows))
    from penstock.client import Client
    from penstock.client.backoff import ONCE

    with Client(source, tls=tls, retry=ONCE) as client:
        health = client.health()
        return read_offer(health.name, health.version, Offer(client.commands(), client.workflows()))


def _written(stubs: Stubs, suffix: str) -> str:
    from penstock.client.stubs.python import write_python
    from penstock.client.stubs.typescript import write_typescript

    return write_python(stubs) if suffix == ".py" else write_typescript(stubs)
