"""`penstock schema`: the JSON Schemas of the typed protocol."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from penstock.cli.completion import schema_names
from penstock.cli.exits import Exit, fail

Name = Annotated[
    str | None,
    typer.Argument(help="One type, such as Request; all of them by default.", autocompletion=schema_names),
]


def schema(name: Name = None) -> None:
    """Print JSON Schemas (2020-12) of the typed protocol."""
    from penstock.protocol.schema import schemas

    found = schemas()
    if name is not None and name not in found:
        fail(f"no type {name!r}; known are {', '.join(found)}", Exit.USAGE)
    print(json.dumps(found if name is None else found[name], indent=2))
