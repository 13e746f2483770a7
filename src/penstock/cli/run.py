"""`penstock run`: serve a project, or an engine without one."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.failure import describe_failure
from penstock.cli.logs import log_to_stderr
from penstock.cli.reload import reload_on_change

if TYPE_CHECKING:
    from penstock.runtime.app import App
    from penstock.server.settings import ServerSettings

Project = Annotated[
    Path | None, typer.Argument(exists=True, help="A folder with manifest.yml, or a .py file.")
]
Engine = Annotated[
    str | None,
    typer.Option(envvar="PENSTOCK_ENGINE", help="Serve a model with no code, such as llamacpp:smollm2-135m."),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on (PENSTOCK_HOST; 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="HTTP port; 0 takes a free one (PENSTOCK_PORT; 8000).")]
WsPort = Annotated[
    int | None,
    typer.Option(
        help="A second port, for WebSocket (PENSTOCK_WS_PORT; 8765 if it is free, none with --port 0)."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes that run the commands; 0 runs them in the server (PENSTOCK_WORKERS; the manifest's)."
    ),
]
Metrics = Annotated[
    bool | None,
    typer.Option(
        "--metrics/--no-metrics", help="Count calls, and show that at /metrics (PENSTOCK_METRICS; on)."
    ),
]
AuthKeys = Annotated[
    Path | None,
    typer.Option(help="File of the keys that callers need; see `penstock keys` (PENSTOCK_AUTH_KEYS; none)."),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="One more name that the server goes by; * is any (PENSTOCK_ALLOW_HOST)."),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(
        help="A site whose pages may use the server, such as https://example.com; * is any "
        "(PENSTOCK_ALLOW_ORIGIN)."
    ),
]
InsecureOpen = Annotated[
    bool | None,
    typer.Option(
        "--insecure-open",
        help="Listen where others can reach the server although it has no keys (PENSTOCK_INSECURE_OPEN).",
    ),
]
Compat = Annotated[
    bool,
    typer.Option(help="Let the project import penstock as xumi, clarifai_protocol and sagellm_protocol."),
]
Reload = Annotated[bool, typer.Option("--reload", help="Start anew when a file of the project changes.")]


def run(
    project: Project = None,
    engine: Engine = None,
    host: Host = None,
    port: Port = None,
    ws_port: WsPort = None,
    workers: Workers = None,
    metrics: Metrics = None,
    auth_keys: AuthKeys = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    insecure_open: InsecureOpen = None,
    compat: Compat = True,
    reload: Reload = False,
) -> None:
    """Serve a project, or an engine that needs none, until Ctrl-C."""
    if project is None and engine is None:
        fail("name a project folder, or an engine with --engine llamacpp:smollm2-135m", Exit.USAGE)
    if reload:
        reload_on_change(project)
        return
    log_to_stderr()
    settings = _settings(
        host=host,
        port=port,
        ws_port=ws_port,
        workers=workers,
        metrics=metrics,
        auth_keys=auth_keys,
        allow_host=_joined(allow_host),
        allow_origin=_joined(allow_origin),
        insecure_open=insecure_open,
    )
    try:
        was_ready = _serve(project, engine, settings, compat)
    except Exception as error:  # noqa: BLE001 - the top of the process: author code may raise anything
        fail(describe_failure(error, project))
    if not was_ready:
        fail("stopped before it was ready", Exit.INTERRUPTED)


def _joined(given: list[str] | None) -> str | None:
    return ",".join(given) if given else None


def _settings(**flags: object) -> ServerSettings:
    from pydantic import ValidationError

    from penstock.server.settings import ServerSettings

    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    try:
        return ServerSettings(**given)
    except ValidationError as error:
        faults = (f"{_spell(str(fault['loc'][0]))}: {fault['msg']}" for fault in error.errors())
        fail("; ".join(faults), Exit.USAGE)


def _spell(setting: str) -> str:
    return f"{setting} (--{setting.replace('_', '-')} or PENSTOCK_{setting.upper()})"


def _serve(project: Path | None, engine: str | None, settings: ServerSettings, compat: bool) -> bool:
    """Serve until stopped; returns whether calls were ever accepted."""
    from penstock.compose import build_app, build_metrics
    from penstock.server.host import Host

    observer, exposition = build_metrics(settings)
    app = build_app(project, engine, settings, compat=compat, observer=observer)
    addresses: list[str] = []

    def ready(address: str) -> None:
        addresses.append(address)
        print(_ready_line(app, address), flush=True)

    _run(Host(app, settings, ready, exposition).serve())
    return bool(addresses)


def _ready_line(app: App, address: str) -> str:
    commands = ", ".join(app.commands) or "none"
    return f"{app.manifest.name} {app.manifest.version} ready on {address} · commands: {commands}"


def _run(work: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        import asyncio

        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)
