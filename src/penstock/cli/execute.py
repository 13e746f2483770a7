"""`penstock exec`: run a program written for the reference systems."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Program = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A Python file.")]
Arguments = Annotated[list[str] | None, typer.Argument(help="What the program finds in sys.argv.")]


def execute(program: Program, arguments: Arguments = None) -> None:
    """Run a Python program with the import names of the reference systems at hand (xumi,
    clarifai_protocol, sagellm_protocol), where no package of that name is installed."""
    import runpy

    from penstock.integrations.names import install

    install(first=False)
    sys.argv = [str(program), *(arguments or [])]
    sys.path.insert(0, str(program.resolve().parent))
    runpy.run_path(str(program), run_name="__main__")
