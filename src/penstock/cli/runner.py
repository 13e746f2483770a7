"""`penstock runner`: offer a project's commands to gateways, or to a server of Clarifai's runners."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.failure import describe_failure
from penstock.cli.labels import read_labels
from penstock.cli.logs import LogForm, LogFormat, log_to_stderr
from penstock.cli.runner_clarifai import (
    Ca,
    Clarifai,
    ComputeClusterId,
    Given,
    Health,
    Keepalive,
    NodepoolId,
    Pat,
    PrivateMedia,
    RunnerId,
    Threads,
    UserId,
    clarifai_runner,
    refuse_without_packages,
    server_url,
)
from penstock.cli.serving import Compat, Engine, Project, Workers, read_settings, run_loop
from penstock.cli.trust import trusting

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.runner.runner import Runner
    from penstock.runtime.app import App

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
    clarifai: Clarifai = None,
    user_id: UserId = None,
    compute_cluster_id: ComputeClusterId = None,
    nodepool_id: NodepoolId = None,
    runner_id: RunnerId = None,
    pat: Pat = None,
    threads: Threads = None,
    ca: Ca = None,
    keepalive: Keepalive = None,
    private_media: PrivateMedia = False,
    health: Health = None,
    log_format: LogFormat = LogForm.TEXT,
) -> None:
    """Offer a project's commands, or an engine's, to gateways or a server of Clarifai's, until Ctrl-C."""
    if project is None and engine is None:
        fail("name a project folder, or an engine with --engine llamacpp:smollm2-135m", Exit.USAGE)
    url, labels = server_url(clarifai, gateways), read_labels(label)
    if url is None and not gateways:
        fail("name a gateway, such as --gateway ws://127.0.0.1:8000, or a server with --clarifai", Exit.USAGE)
    if url is not None:
        refuse_without_packages()
    log_to_stderr(log_format)

    from penstock.compose import build_app
    from penstock.errors import PenstockError
    from penstock.runner.service import Serving, serve

    settings = read_settings(workers=workers)
    dialling: Serving
    try:
        app = build_app(project, engine, settings, compat=compat)
        if url is None:
            dialling = _dialling(app, gateways, name, token, labels, capacity, ca)
        else:
            ids = (user_id, compute_cluster_id, nodepool_id, runner_id)
            given = Given(url, *ids, pat, threads, ca, keepalive, private_media, health)
            dialling = clarifai_runner(app, project, given)
    except PenstockError as error:
        fail(describe_failure(error, project))
    try:
        run_loop(serve(dialling, lambda words: print(words, flush=True)))
    except Exception as error:  # noqa: BLE001 - the top of the process: author code may raise anything
        fail(describe_failure(error, project))


def _dialling(
    app: App,
    gateways: list[str],
    name: str | None,
    token: str | None,
    labels: dict[str, str],
    capacity: int | None,
    ca: Path | None,
) -> Runner:
    from penstock.runner.runner import Runner

    tls = trusting(ca)
    try:
        return Runner(
            app, gateways, name or _own_name(), token=token, tls=tls, labels=labels, capacity=capacity
        )
    except ValueError as error:
        fail(str(error), Exit.USAGE)


def _own_name() -> str:
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname())
    return f"{host.strip('-')[:50] or 'runner'}-{secrets.token_hex(3)}"
