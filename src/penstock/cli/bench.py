"""`penstock bench`: calls of a command under load, and what they took."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli.completion import command_names, input_words
from penstock.cli.exits import Exit, fail
from penstock.cli.inputs import FORMS, read_inputs
from penstock.cli.trust import Ca, trusting

SECONDS = 10.0

Url = Annotated[str, typer.Argument(help="The server.")]
Name = Annotated[str, typer.Argument(help="The command, such as predict.", autocompletion=command_names)]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help=f"Its input: {FORMS}.", autocompletion=input_words),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Calls at once.")]
Requests = Annotated[int | None, typer.Option(min=1, help="Make so many calls.")]
Seconds = Annotated[
    float | None, typer.Option(min=0.001, help=f"Begin calls for so long ({SECONDS:g}, without --requests).")
]
Timeout = Annotated[float | None, typer.Option(help="Give a call up after so many seconds.")]
Json = Annotated[bool, typer.Option("--json", help="Print one object of JSON.")]


def bench(
    url: Url,
    name: Name,
    inputs: Inputs = None,
    concurrency: Concurrency = 1,
    requests: Requests = None,
    seconds: Seconds = None,
    timeout: Timeout = None,
    json: Json = False,
    ca: Ca = None,
) -> None:
    """Call a command again and again, and tell what that took.

    penstock bench http://127.0.0.1:8000 predict prompt="A fox" --concurrency 8 --requests 200
    """
    if requests is not None and seconds is not None:
        fail("--requests and --seconds: give one of them", Exit.USAGE)
    given, tls = read_inputs(inputs or ()), trusting(ca)

    from penstock.cli.load import Load, Plan
    from penstock.cli.load_report import as_json, as_text
    from penstock.cli.serving import run_loop
    from penstock.client import AsyncClient
    from penstock.client.backoff import ONCE
    from penstock.errors import CallError, ConnectionFailed, PenstockError

    if requests is None and seconds is None:
        seconds = SECONDS
    try:
        client = AsyncClient(url, tls=tls, timeout_s=timeout, retry=ONCE)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    load = Load(client, Plan(name, given, concurrency, requests, seconds))
    try:
        run_loop(load.run())
    except ConnectionFailed as error:
        fail(error.message, Exit.NO_SERVER)
    except CallError as error:
        fail(f"{error.message} ({error.code.value})")
    except PenstockError as error:
        fail(str(error))
    print((as_json if json else as_text)(load.measured))
    if load.interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if load.measured.errors:
        raise typer.Exit(Exit.FAILED)
