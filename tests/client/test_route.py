"""`route=`: it reaches the dispatcher as it was given, whichever way a call goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from behaviour.served import hosted
from penstock.calls.live import Live
from penstock.client import AsyncClient
from penstock.errors import CallError, ErrorCode
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import Route, Start
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime

pytestmark = pytest.mark.anyio

STEPS = [{"id": "one", "command": "echo", "input": "${input}"}]
LABELS = {"gpu": "a100", "zone": "x"}


class Noting(App):
    """Remembers the route of each call."""

    def __init__(self) -> None:
        runtime = Runtime(Manifest(name="notes", workflows={"one": {"steps": STEPS}}))

        @runtime.streaming_command("echo")
        async def echo(text: str):
            yield text

        super().__init__(runtime)
        self.routes: list[Route | None] = []

    async def open(self, start: Start, caller: Caller) -> Live:
        self.routes.append(start.route)
        return await super().open(start, caller)


@pytest.fixture(params=["local", "http", "ws"])
async def noted(request: pytest.FixtureRequest) -> AsyncIterator[tuple[AsyncClient, list[Route | None]]]:
    app = Noting()
    async with hosted(app) as (_, (host, port)):
        target = app if request.param == "local" else f"{request.param}://{host}:{port}"
        async with AsyncClient(target) as client:
            yield client, app.routes


async def streamed(stream: Any) -> None:
    async with stream as items:
        async for _ in items:
            pass


WAYS: dict[str, Callable[[AsyncClient, Any], Awaitable[Any]]] = {
    "run": lambda client, route: client.run("echo", text="x", route=route),
    "stream": lambda client, route: streamed(client.stream("echo", text="x", route=route)),
    "workflow": lambda client, route: streamed(client.workflow("one", text="x", route=route)),
    "run_workflow": lambda client, route: client.run_workflow("one", text="x", route=route),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_route_arrives_as_it_was_given(
    noted: tuple[AsyncClient, list[Route | None]], way: str
) -> None:
    client, routes = noted
    for route in (None, {"labels": LABELS}, {"sticky": "user-17"}, Route(labels=LABELS, sticky="")):
        await WAYS[way](client, route)
    assert routes == [None, Route(labels=LABELS), Route(sticky="user-17"), Route(labels=LABELS, sticky="")]


@pytest.mark.parametrize(
    "route",
    [
        {"label": LABELS},
        {"labels": {"a": 1}},
        {"labels": {"a": "b" * 257}},
        {"sticky": 3},
        {"sticky": "k" * 257},
    ],
)
async def test_what_is_no_route_is_refused_before_it_is_sent(
    noted: tuple[AsyncClient, list[Route | None]], route: dict[str, Any]
) -> None:
    client, routes = noted
    with pytest.raises(CallError, match=r"route is \{") as refused:
        await client.run("echo", text="x", route=route)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert routes == []
