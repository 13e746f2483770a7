"""The runners over HTTP: listed, drained, weighed and removed, by admins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from penstock.errors import CallError, ErrorCode
from penstock.gateway.hub import Hub
from penstock.gateway.runner import Runner
from penstock.protocol.dispatch import Caller

Handler = Callable[..., Awaitable[None]]


class Exchange(Protocol):
    """A request to answer, as a server has it."""

    caller: Caller

    async def json_body(self) -> bytes: ...
    async def reply(self, status: int, body: bytes) -> None: ...


class _Weight(msgspec.Struct):
    weight: float


class RunnerRoutes:
    """Answers what is asked about the runners of a gateway.

    Args:
        hub: Whose they are.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def table(self) -> Mapping[str, Mapping[str, Handler]]:
        """Return what answers, by path and method."""
        return {
            "/v2/runners": {"GET": self.list},
            "/v2/runners/{id}": {"GET": self.show, "DELETE": self.remove},
            "/v2/runners/{id}/drain": {"POST": self.drain, "DELETE": self.undrain},
            "/v2/runners/{id}/weight": {"POST": self.weigh},
        }

    async def list(self, exchange: Exchange) -> None:
        """`GET /v2/runners`: those that are there, or may come back."""
        _admins_only(exchange)
        shown = {"runners": [_shown(runner) for runner in self._hub.runners]}
        await exchange.reply(200, msgspec.json.encode(shown))

    async def show(self, exchange: Exchange, name: str) -> None:
        """`GET /v2/runners/{id}`: one of them."""
        _admins_only(exchange)
        await self._reply(exchange, name)

    async def drain(self, exchange: Exchange, name: str) -> None:
        """`POST /v2/runners/{id}/drain`: it gets no more calls."""
        _admins_only(exchange)
        self._hub.set_draining(name, True)
        await self._reply(exchange, name)

    async def undrain(self, exchange: Exchange, name: str) -> None:
        """`DELETE /v2/runners/{id}/drain`: it gets calls again."""
        _admins_only(exchange)
        self._hub.set_draining(name, False)
        await self._reply(exchange, name)

    async def weigh(self, exchange: Exchange, name: str) -> None:
        """`POST /v2/runners/{id}/weight`: its share of the calls."""
        _admins_only(exchange)
        self._hub.set_weight(name, _weight(await exchange.json_body()))
        await self._reply(exchange, name)

    async def remove(self, exchange: Exchange, name: str) -> None:
        """`DELETE /v2/runners/{id}`: it is sent away for good."""
        _admins_only(exchange)
        runner = self._hub.runners.find(name)
        self._hub.remove(name)
        await exchange.reply(200, msgspec.json.encode(_shown(runner)))

    async def _reply(self, exchange: Exchange, name: str) -> None:
        await exchange.reply(200, msgspec.json.encode(_shown(self._hub.runners.find(name))))


def _admins_only(exchange: Exchange) -> None:
    if not exchange.caller.admin:
        raise CallError("runners are for keys of the scope admin", ErrorCode.PERMISSION_DENIED)


def _weight(body: bytes) -> float:
    try:
        return msgspec.json.decode(body, type=_Weight).weight
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        text = f'the body is {{"weight": a number}}: {str(error)[:200]}'
        raise CallError(text, ErrorCode.INVALID_ARGUMENT) from error


def _shown(runner: Runner) -> dict[str, Any]:
    return {
        "name": runner.name,
        "state": runner.state,
        "status": runner.status,
        "software": runner.identity.software,
        "connected_at": round(runner.connected_at, 3),
        "calls": runner.calls,
        "capacity": runner.capacity,
        "weight": runner.weight,
        "prefix_blocks": runner.prefixes.blocks,
        "labels": runner.labels,
        "commands": {name: offer.concurrency for name, offer in runner.offers.items()},
        "workflows": list(runner.workflows),
    }
