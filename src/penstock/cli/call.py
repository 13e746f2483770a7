"""`penstock call`: run one command on a server."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli.completion import command_names, input_words
from penstock.cli.exits import Exit, fail
from penstock.cli.inputs import FORMS, read_inputs
from penstock.cli.labels import read_labels
from penstock.cli.trust import Ca, trusting

DEFAULT_URL = "http://127.0.0.1:8000"

Name = Annotated[str, typer.Argument(help="The command, such as predict.", autocompletion=command_names)]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help=f"Its input: {FORMS}.", autocompletion=input_words),
]
Url = Annotated[str, typer.Option(envvar="PENSTOCK_URL", help="The server.")]
Stream = Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON lines: the frames of a stream, or the answer.")
]
TaskId = Annotated[str | None, typer.Option(help="A name for the call.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="name=value, which the runner of a gateway is to have; several times."),
]
Sticky = Annotated[
    str | None, typer.Option(help="Run it on the same runner of a gateway as other calls of this key.")
]
Timeout = Annotated[float | None, typer.Option(help="Give up after so many seconds.")]


def call(
    name: Name,
    inputs: Inputs = None,
    url: Url = DEFAULT_URL,
    stream: Stream = False,
    json: Json = False,
    task_id: TaskId = None,
    timeout: Timeout = None,
    label: Labels = None,
    sticky: Sticky = None,
    ca: Ca = None,
) -> None:
    """Run a command on a server; Ctrl-C cancels it.

    penstock call predict prompt="A fox" --stream
    """
    given, tls = read_inputs(inputs or ()), trusting(ca)
    route = {"labels": read_labels(label), "sticky": sticky} if label or sticky is not None else None

    import asyncio

    from penstock.cli.calling import Calling
    from penstock.errors import CallError, ConnectionFailed, PenstockError

    try:
        calling = Calling(url, name, given, task_id=task_id, timeout_s=timeout, route=route, tls=tls)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    try:
        asyncio.run(calling.run(stream=stream, as_json=json))
    except ConnectionFailed as error:
        fail(error.message, Exit.NO_SERVER)
    except CallError as error:
        fail(f"{error.message} ({error.code.value})")
    except PenstockError as error:
        fail(str(error))
