"""Routes about the server itself: probes, health, what it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from penstock.calls.traffic import Traffic
from penstock.protocol.dispatch import Dispatcher, Health
from penstock.server.exchange import Exchange, Header

_NOT_STORED: tuple[Header, ...] = ((b"cache-control", b"no-store"),)

Exposition: TypeAlias = Callable[[str, "Traffic | None"], tuple[str, bytes]]
"""Returns metrics behind their media type, in the form that an ``Accept`` header asks for, with those of a
server."""


class MetaRoutes:
    """Probes, `/health` and `/v2/commands`.

    Args:
        dispatcher: What is asked.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def health(self, exchange: Exchange) -> None:
        """`GET /health`: 503 unless healthy."""
        health = await self._dispatcher.health()
        body = {
            "status": health.status,
            "name": health.name,
            "version": health.version,
            "uptime_s": health.uptime_s,
            "in_flight": health.in_flight,
            "timestamp": round(exchange.wall(), 3),
        }
        await self._probe(exchange, health, health.status == "healthy", body)

    async def livez(self, exchange: Exchange) -> None:
        """`GET /livez`: the process answers and its model has not failed for good."""
        health = await self._dispatcher.health()
        await self._probe(exchange, health, health.status != "unhealthy")

    async def readyz(self, exchange: Exchange) -> None:
        """`GET /readyz`: calls are accepted."""
        health = await self._dispatcher.health()
        await self._probe(exchange, health, health.status == "healthy")

    async def startupz(self, exchange: Exchange) -> None:
        """`GET /startupz`: the model has been loaded."""
        health = await self._dispatcher.health()
        await self._probe(exchange, health, health.status in ("healthy", "draining"))

    async def commands(self, exchange: Exchange) -> None:
        """`GET /v2/commands`: what can be called, with schemas."""
        description = await self._dispatcher.describe()
        body = {
            "commands": description.commands,
            "workflows": description.workflows,
            "version": "v2",
            "timestamp": round(exchange.wall(), 3),
        }
        await exchange.reply(200, msgspec.json.encode(body))

    async def _probe(
        self, exchange: Exchange, health: Health, good: bool, body: dict[str, object] | None = None
    ) -> None:
        if exchange.caller.anonymous:  # how it is, and not what
            body = {"status": health.status}
        elif body is None:
            body = _probe_body(health)
        await exchange.reply(200 if good else 503, msgspec.json.encode(body), _NOT_STORED)


class MetricsRoute:
    """`/metrics`.

    Args:
        exposition: Writes them.
        traffic: What the server has answered; None leaves that out.
    """

    def __init__(self, exposition: Exposition, traffic: Traffic | None = None) -> None:
        self._exposition = exposition
        self._traffic = traffic

    async def show(self, exchange: Exchange) -> None:
        """`GET /metrics`: what has been counted, in the form that is asked for."""
        media_type, body = self._exposition(exchange.header(b"accept") or "", self._traffic)
        await exchange.reply(200, body, _NOT_STORED, (b"content-type", media_type.encode()))


def _probe_body(health: Health) -> dict[str, object]:
    return {
        "status": health.status,
        "phase": health.phase,
        "elapsed_s": health.elapsed_s,
        "checks": health.checks,
    }
