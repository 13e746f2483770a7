"""`penstock call`: run one command on a server."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.inputs import read_inputs

DEFAULT_URL = "http://127.0.0.1:8000"

Name = Annotated[str, typer.Argument(help="The command, such as predict.")]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Its input: name=text, name:=json or name=@file."),
]
Url = Annotated[str, typer.Option(envvar="PENSTOCK_URL", help="The server.")]
Stream = Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON lines: the frames of a stream, or the answer.")
]
TaskId = Annotated[str | None, typer.Option(help="A name for the call.")]
Timeout = Annotated[float | None, typer.Option(help="Give up after so many seconds.")]


def call(
    name: Name,
    inputs: Inputs = None,
    url: Url = DEFAULT_URL,
    stream: Stream = False,
    json: Json = False,
    task_id: TaskId = None,
    timeout: Timeout = None,
) -> None:
    """Run a command on a server; Ctrl-C cancels it.

    penstock call predict prompt="A fox" --stream
    """
    given = read_inputs(inputs or ())

    import asyncio

    from penstock.cli.calling import Calling
    from penstock.errors import CallError, ConnectionFailed, PenstockError

    try:
        calling = Calling(url, name, given, task_id=task_id, timeout_s=timeout)
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
