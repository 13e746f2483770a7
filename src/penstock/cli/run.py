"""`penstock run`: serve a project, or an engine without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.failure import describe_failure
from penstock.cli.logs import LogForm, LogFormat, log_to_stderr
from penstock.cli.reload import reload_on_change
from penstock.cli.serving import (
    AllowHost,
    AllowOrigin,
    AuthKeys,
    Compat,
    Engine,
    Host,
    InsecureOpen,
    KvEvents,
    KvReplays,
    Mcp,
    Metrics,
    Port,
    Project,
    ShowPlayground,
    TlsCert,
    TlsKey,
    Traces,
    Workers,
    WsPort,
    read_settings,
    run_loop,
)

if TYPE_CHECKING:
    from penstock.runtime.app import App
    from penstock.server.settings import ServerSettings

Reload = Annotated[bool, typer.Option("--reload", help="Start anew when a file of the project changes.")]


def run(
    project: Project = None,
    engine: Engine = None,
    host: Host = None,
    port: Port = None,
    ws_port: WsPort = None,
    workers: Workers = None,
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
    kv_events: KvEvents = None,
    kv_replays: KvReplays = None,
    compat: Compat = True,
    reload: Reload = False,
    log_format: LogFormat = LogForm.TEXT,
) -> None:
    """Serve a project, or an engine that needs none, until Ctrl-C."""
    if project is None and engine is None:
        fail("name a project folder, or an engine with --engine llamacpp:smollm2-135m", Exit.USAGE)
    if reload:
        reload_on_change(project)
        return
    log_to_stderr(log_format)
    settings = read_settings(**locals())
    try:
        was_ready = _serve(project, engine, settings, compat)
    except Exception as error:  # noqa: BLE001 - the top of the process: author code may raise anything
        fail(describe_failure(error, project))
    if not was_ready:
        fail("stopped before it was ready", Exit.INTERRUPTED)


def _serve(project: Path | None, engine: str | None, settings: ServerSettings, compat: bool) -> bool:
    """Serve until stopped; returns whether calls were ever accepted."""
    from penstock.compose import build_app, build_observer
    from penstock.server import host

    observer, exposition = build_observer(settings)
    app = build_app(project, engine, settings, compat=compat, observer=observer)
    addresses: list[str] = []

    def ready(address: str) -> None:
        addresses.append(address)
        print(_ready_line(app, address), flush=True)

    try:
        run_loop(host.Host(app, settings, ready, exposition).serve())
    finally:
        observer.close()
    return bool(addresses)


def _ready_line(app: App, address: str) -> str:
    commands = ", ".join(app.commands) or "none"
    return f"{app.manifest.name} {app.manifest.version} ready on {address} · commands: {commands}"
