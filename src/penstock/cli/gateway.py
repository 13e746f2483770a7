"""`penstock gateway`: serve the commands of runners that dial in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.failure import describe_failure
from penstock.cli.logs import LogForm, LogFormat, log_to_stderr
from penstock.cli.serving import (
    AllowHost,
    AllowOrigin,
    AuthKeys,
    Host,
    InsecureOpen,
    Mcp,
    Metrics,
    Port,
    ShowPlayground,
    TlsCert,
    TlsKey,
    Traces,
    WsPort,
    read_settings,
    run_loop,
)

if TYPE_CHECKING:
    from penstock.gateway.clarifai.settings import LinkSettings

Name = Annotated[str, typer.Option(help="What the gateway is called.")]
DefaultCommand = Annotated[
    str | None,
    typer.Option(help="The command of calls that name none (predict, or the default of the first runner)."),
]

ClarifaiPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="gRPC port for Clarifai's runners and clients; 0 takes a free one "
        "(PENSTOCK_CLARIFAI_PORT; none).",
    ),
]


def gateway(
    host: Host = None,
    port: Port = None,
    ws_port: WsPort = None,
    name: Name = "gateway",
    default_command: DefaultCommand = None,
    metrics: Metrics = None,
    traces: Traces = None,
    mcp: Mcp = None,
    playground: ShowPlayground = None,
    auth_keys: AuthKeys = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    insecure_open: InsecureOpen = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    clarifai_port: ClarifaiPort = None,
    log_format: LogFormat = LogForm.TEXT,
) -> None:
    """Serve the commands of runners that dial in, until Ctrl-C."""
    log_to_stderr(log_format)
    settings = read_settings(**locals())

    from penstock.compose import build_gateway, build_observer
    from penstock.errors import PenstockError
    from penstock.server import host as hosting

    link = _read_link_settings(clarifai_port)
    observer, exposition = build_observer(settings)

    clarifai: list[str] = []

    def ready(address: str) -> None:
        print(f"{name} ready on {address} · runners dial {address.replace('http', 'ws')}", flush=True)
        for where in clarifai:
            print(f"Clarifai's runners and clients dial {where}", flush=True)

    try:
        hub, extension = build_gateway(
            name,
            settings,
            default_command=default_command,
            observer=observer,
            clarifai=link,
            listening=clarifai.append,
        )
    except ValueError as error:
        fail(f"--name {name}: {error}", Exit.USAGE)
    except PenstockError as error:
        fail(describe_failure(error, None))
    try:
        run_loop(hosting.Host(hub, settings, ready, exposition, extension).serve())
    except PenstockError as error:
        fail(describe_failure(error, None))
    finally:
        observer.close()


def _read_link_settings(port: int | None) -> LinkSettings:
    from pydantic import ValidationError

    from penstock.gateway.clarifai.settings import LinkSettings

    try:
        return LinkSettings() if port is None else LinkSettings(port=port)
    except ValidationError as error:
        faults = (
            f"PENSTOCK_CLARIFAI_{fault['loc'][0]!s}".upper() + f": {fault['msg']}" for fault in error.errors()
        )
        fail("; ".join(faults), Exit.USAGE)
