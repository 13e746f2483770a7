"""Settings of a server: flag > environment (``PENSTOCK_*``) > default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from typing_extensions import Self

from penstock.calls.limits import KIB, MIB, CallLimits
from penstock.server.sites import check_origin

_CALLS = CallLimits()


class ServerSettings(BaseSettings):
    """Where a server listens and how much it takes; sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore")

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="HTTP port; 0 takes a free one.")] = 8000
    ws_port: Annotated[
        int | None,
        Field(
            ge=0,
            le=65535,
            description="A second port, for WebSocket clients that know it by number. "
            "By default 8765 if it is free, and none where port is 0.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Field(
            ge=0,
            le=1024,
            description="Processes that run the project's commands; 0 runs them in the server's own. "
            "By default what the manifest says.",
        ),
    ] = None
    auth_keys: Annotated[
        Path | None, Field(description="File of the keys that callers need; without it nobody needs one.")
    ] = None
    allow_host: Annotated[
        str | None, Field(description="More names that the server goes by, with commas between; * is any.")
    ] = None
    allow_origin: Annotated[
        str | None, Field(description="Sites whose pages may use it, with commas between; * is any.")
    ] = None
    traces: Annotated[
        bool, Field(description="Send a span for each call to where OpenTelemetry's variables say.")
    ] = False
    mcp: Annotated[
        bool, Field(description="Serve the commands as tools of the Model Context Protocol, at /mcp.")
    ] = False
    insecure_open: Annotated[
        bool, Field(description="Listen where others can reach the server although it has no keys.")
    ] = False
    tls_cert: Annotated[
        Path | None,
        Field(description="The server's certificate, PEM; with it, nothing is spoken in clear."),
    ] = None
    tls_key: Annotated[Path | None, Field(description="The key of that certificate, PEM.")] = None
    kv_events: Annotated[
        str | None,
        Field(description="Address where the events of engines' KV caches are published over ZeroMQ."),
    ] = None
    kv_replays: Annotated[
        str | None, Field(description="Address that answers who has lost some of those events.")
    ] = None
    max_connections: Annotated[
        int | None,
        Field(
            gt=0,
            description="Most connections at a time; beyond them only probes are answered. "
            "By default 10,000, or four fifths of the file descriptors there may be if that is less.",
        ),
    ] = None
    max_calls: Annotated[int, Field(gt=0, description="Most calls that are accepted and have not ended.")] = (
        _CALLS.in_flight
    )
    window: Annotated[int, Field(gt=0, description="How far a call may run ahead of its fastest reader.")] = (
        _CALLS.window
    )
    kept_per_call: Annotated[
        int, Field(gt=0, description="Most frames of a call that are kept for who comes back.")
    ] = _CALLS.kept_per_call
    kept_in_all: Annotated[int, Field(gt=0, description="Most frames of all ended calls that are kept.")] = (
        _CALLS.kept_in_all
    )
    kept_for_s: Annotated[
        float, Field(gt=0, description="How long the frames of an ended call are kept.")
    ] = _CALLS.kept_for_s
    known_calls: Annotated[
        int, Field(gt=0, description="How many ended calls are known by id, with or without their frames.")
    ] = _CALLS.known_calls
    cancel_grace_s: Annotated[
        float, Field(gt=0, description="After so long a cancelled call that still runs is reported as stuck.")
    ] = _CALLS.cancel_grace_s
    max_body: Annotated[int, Field(gt=0, description="Largest request body.")] = 16 * MIB
    max_header: Annotated[
        int, Field(gt=0, description="Largest head of a request: its first line and headers.")
    ] = 32 * KIB
    max_uri: Annotated[int, Field(gt=0, description="Longest target of a request, with its query.")] = 8 * KIB
    max_ahead: Annotated[
        int, Field(gt=0, description="Most that is kept of requests sent ahead of the answer that is due.")
    ] = 256 * KIB
    header_s: Annotated[float, Field(gt=0, description="How long the head of a request may take.")] = 10.0
    body_idle_s: Annotated[float, Field(gt=0, description="Most silence within a request body.")] = 30.0
    max_request_id: Annotated[int, Field(gt=0, description="Characters of X-Request-Id that are kept.")] = 128
    ping_s: Annotated[float, Field(gt=0, description="WebSocket ping; closed after 1.5 times that.")] = 30.0
    slow_reader_s: Annotated[
        float, Field(gt=0, description="How long a client may take nothing of what waits for it.")
    ] = 30.0
    silent_s: Annotated[float, Field(gt=0, description="Most silence on an HTTP stream.")] = 15.0
    keep_alive_s: Annotated[float, Field(gt=0, description="How long an idle connection is kept.")] = 75.0
    metrics: Annotated[bool, Field(description="Count calls, and show that at /metrics.")] = True
    playground: Annotated[
        bool, Field(description="Show a page at / in which the commands can be tried, and /docs.")
    ] = True
    drain_s: Annotated[float, Field(gt=0, description="How long calls may go on after SIGTERM.")] = (
        _CALLS.drain_s
    )

    @field_validator("allow_origin")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        for origin in words(value):
            check_origin(origin)
        return value

    @model_validator(mode="after")
    def _replays_are_of_events(self) -> Self:
        if self.kv_replays is not None and self.kv_events is None:
            raise ValueError(
                "--kv-replays goes with --kv-events (PENSTOCK_KV_REPLAYS with PENSTOCK_KV_EVENTS)"
            )
        return self

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together (PENSTOCK_TLS_CERT and PENSTOCK_TLS_KEY)")
        return self

    def call_limits(self) -> CallLimits:
        """Return the bounds on calls."""
        return CallLimits(
            in_flight=self.max_calls,
            window=self.window,
            kept_per_call=self.kept_per_call,
            kept_in_all=self.kept_in_all,
            kept_for_s=self.kept_for_s,
            known_calls=self.known_calls,
            cancel_grace_s=self.cancel_grace_s,
            drain_s=self.drain_s,
        )


def words(text: str | None) -> list[str]:
    """Return the parts of a list with commas."""
    return [word for part in (text or "").split(",") if (word := part.strip())]
