"""What the verbs that serve have in common: their flags, and how they run."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.exits import Exit, fail

if TYPE_CHECKING:
    from penstock.server.settings import ServerSettings

Project = Annotated[
    Path | None,
    typer.Argument(exists=True, help="A folder with manifest.yml, a Clarifai model folder, or a .py file."),
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
Traces = Annotated[
    bool | None,
    typer.Option(
        "--traces", help="Send a span for each call to where OTEL_… variables say (PENSTOCK_TRACES; off)."
    ),
]
ShowPlayground = Annotated[
    bool | None,
    typer.Option(
        "--playground/--no-playground",
        help="Show a page at / in which the commands can be tried, and /docs (PENSTOCK_PLAYGROUND; on).",
    ),
]
Mcp = Annotated[
    bool | None,
    typer.Option("--mcp", help="Serve the commands as MCP tools at /mcp (PENSTOCK_MCP; off)."),
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
TlsCert = Annotated[
    Path | None,
    typer.Option(help="The server's certificate, PEM; nothing is spoken in clear then (PENSTOCK_TLS_CERT)."),
]
KvEvents = Annotated[
    str | None,
    typer.Option(
        help="Publish the events of engines' KV caches over ZeroMQ, such as at tcp://127.0.0.1:5557 "
        "(PENSTOCK_KV_EVENTS)."
    ),
]
KvReplays = Annotated[
    str | None,
    typer.Option(help="Answer who has lost some, at this address (PENSTOCK_KV_REPLAYS)."),
]
TlsKey = Annotated[Path | None, typer.Option(help="The key of the certificate, PEM (PENSTOCK_TLS_KEY).")]
Compat = Annotated[
    bool,
    typer.Option(help="Let the project import penstock as xumi, clarifai_protocol and sagellm_protocol."),
]


def read_settings(**flags: object) -> ServerSettings:
    """Return the settings of a server; flags that were not given leave them to the environment.

    Args:
        flags: What a verb was given, by name; what is no setting is passed over.

    Raises:
        typer.Exit: One does not fit.
    """
    from pydantic import ValidationError

    from penstock.server.settings import ServerSettings

    known = ServerSettings.model_fields
    given: dict[str, Any] = {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if name in known and value not in (None, [])
    }
    try:
        return ServerSettings(**given)
    except ValidationError as error:
        faults = (_say(fault["loc"], fault["msg"]) for fault in error.errors())
        fail("; ".join(faults), Exit.USAGE)


def _say(where: Sequence[object], what: str) -> str:
    if not where:
        return what
    setting = str(where[0])
    return f"{setting} (--{setting.replace('_', '-')} or PENSTOCK_{setting.upper()}): {what}"


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` on the best event loop there is."""
    if sys.platform == "win32":
        import asyncio

        asyncio.run(work)
    else:
        import uvloop

        uvloop.run(work)
