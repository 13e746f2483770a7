"""The `penstock` command, one file per verb.

Whatever a verb needs is imported when it runs, so that `penstock --help` answers at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from penstock.cli.annotate import annotate
from penstock.cli.annotations import verbs as annotation_verbs
from penstock.cli.bench import bench
from penstock.cli.call import call
from penstock.cli.chat import chat
from penstock.cli.client_gen import client_gen
from penstock.cli.completion import files_in_bash
from penstock.cli.doctor import doctor
from penstock.cli.execute import execute
from penstock.cli.gateway import gateway
from penstock.cli.inspect import inspect
from penstock.cli.keys import keys
from penstock.cli.new import new
from penstock.cli.pull import pull
from penstock.cli.run import run
from penstock.cli.runner import runner
from penstock.cli.runners import runners
from penstock.cli.schema import schema
from penstock.cli.top import top

app = typer.Typer(
    name="penstock",
    help="Serve a model as a stream.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: to draw frames around it would double the time it takes
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (run, call, chat, top, bench, annotate, gateway, runner, new, inspect, doctor, pull, schema):
    app.command()(verb)
app.command("client-gen")(client_gen)
app.add_typer(annotation_verbs, name="annotations")
app.add_typer(keys, name="keys")
app.add_typer(runners, name="runners")
# What follows the file's name belongs to the program.
app.command("exec", context_settings={"allow_interspersed_args": False})(execute)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Serve a model as a stream."""


def main() -> None:
    """Run the command that the process's arguments name."""
    if os.environ.get("_PENSTOCK_COMPLETE") == "complete_bash" and (found := files_in_bash()) is not None:
        print("\n".join(found))
        return
    app(prog_name="penstock")
