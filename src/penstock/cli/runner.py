"""`penstock runner`: offer a project's commands to gateways."""

from __future__ import annotations

import secrets
import socket
from typing import Annotated

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.failure import describe_failure
from penstock.cli.logs import log_to_stderr
from penstock.cli.serving import Compat, Engine, Project, Workers, read_settings, run_loop

Gateways = Annotated[
    list[str],
    typer.Option("--gateway", help="A gateway to dial, such as wss://host:8000; may be given several times."),
]
Name = Annotated[
    str | None, typer.Option(help="What the runner is called there (the machine's name, and some digits).")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="name=value, for calls that ask for it; several times.")
]
Token = Annotated[
    str | None,
    typer.Option(envvar="PENSTOCK_RUNNER_TOKEN", help="The runner's key; better in the environment."),
]
Capacity = Annotated[int | None, typer.Option(min=1, help="Calls at once, whatever they are.")]


def runner(
    project: Project = None,
    gateways: Gateways = [],  # noqa: B006 - typer reads it, and nobody changes it
    engine: Engine = None,
    name: Name = None,
    label: Labels = None,
    token: Token = None,
    capacity: Capacity = None,
    workers: Workers = None,
    compat: Compat = True,
) -> None:
    """Offer a project's commands, or an engine's, to gateways, until Ctrl-C."""
    if project is None and engine is None:
        fail("name a project folder, or an engine with --engine llamacpp:smollm2-135m", Exit.USAGE)
    if not gateways:
        fail("name a gateway, such as --gateway ws://127.0.0.1:8000", Exit.USAGE)
    log_to_stderr()

    from penstock.compose import build_app
    from penstock.errors import PenstockError
    from penstock.runner.runner import Runner
    from penstock.runner.service import serve

    settings, labels = read_settings(workers=workers), _labels(label)
    try:
        app = build_app(project, engine, settings, compat=compat)
    except PenstockError as error:
        fail(describe_failure(error, project))
    try:
        dialling = Runner(app, gateways, name or _own_name(), token=token, labels=labels, capacity=capacity)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    try:
        run_loop(serve(dialling, lambda words: print(words, flush=True)))
    except Exception as error:  # noqa: BLE001 - the top of the process: author code may raise anything
        fail(describe_failure(error, project))


def _labels(given: list[str] | None) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"--label {text}: write it as name=value", Exit.USAGE)
        labels[name] = value
    return labels


def _own_name() -> str:
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname())
    return f"{host.strip('-')[:50] or 'runner'}-{secrets.token_hex(3)}"
