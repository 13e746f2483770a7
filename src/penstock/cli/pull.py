"""`penstock pull`: bring a model to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.completion import known_models
from penstock.cli.exits import fail
from penstock.errors import CallError

if TYPE_CHECKING:
    from penstock.engines.store import ModelStore

Name = Annotated[
    str,
    typer.Argument(
        help="A model such as smollm2-135m, or owner/repo/file.gguf of Hugging Face.",
        autocompletion=known_models,
    ),
]


def pull(name: Name) -> None:
    """Bring a model to this machine, and check that it is the right one."""
    from penstock.engines.store import ModelStore

    try:
        path = _pull(ModelStore(), name)
    except CallError as error:
        fail(error.message)
    print(path)


def _pull(store: ModelStore, name: str) -> Path:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(name)

        def show(done: int, total: int | None, phase: str) -> None:
            bars.update(bar, completed=done, total=total, description=f"{name}: {phase}")

        return store.pull(name, show)
