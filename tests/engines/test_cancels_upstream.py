"""However a call ends early, and at whatever moment: the work at SGLang or Anthropic ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple

import anyio
import pytest

from engines.upstreams.anthropic import AnthropicServer
from engines.upstreams.asking import WAIT_S, until
from engines.upstreams.server import Upstream
from engines.upstreams.sglang import SGLangServer
from penstock import AsyncClient, CallCancelled, CallError
from penstock.client.stream import AsyncStream
from penstock.compose import build_app
from penstock.runtime.app import App
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


class Stage(NamedTuple):
    """An app on an upstream."""

    app: App
    client: AsyncClient
    upstream: Upstream
    working: Callable[[], int]


def _sglang(_: pytest.MonkeyPatch) -> tuple[Upstream, str, Callable[[], int]]:
    played = SGLangServer()
    return played, "sglang://127.0.0.1:{port}?capacity=1", lambda: len(played.live)


def _anthropic(monkeypatch: pytest.MonkeyPatch) -> tuple[Upstream, str, Callable[[], int]]:
    pytest.importorskip("anthropic", reason="needs the extra anthropic")
    played = AnthropicServer()
    monkeypatch.setenv("ANTHROPIC_API_KEY", played.key)
    return played, "anthropic://127.0.0.1:{port}?model=m&capacity=1", lambda: played.working


@pytest.fixture(params=[_sglang, _anthropic], ids=["sglang", "anthropic"])
async def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    upstream, spec, working = request.param(monkeypatch)
    upstream.gate.hold(after=0)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(upstream.running())
        app = build_app(None, spec.format(port=upstream.port), ServerSettings(drain_s=0.1))
        await stack.enter_async_context(app)
        client = await stack.enter_async_context(AsyncClient(app))
        yield Stage(app, client, upstream, working)
    assert working() == 0
    assert upstream.open_connections == 0
    assert getattr(upstream, "useless", []) == []


async def by_request(stage: Stage, stream: AsyncStream) -> None:
    await stream.cancel()


async def by_another(stage: Stage, stream: AsyncStream) -> None:
    await stage.client.cancel(stream.task_id)


async def by_leaving(stage: Stage, stream: AsyncStream) -> None:
    """Its stream is left when the block ends."""


async def by_deadline(stage: Stage, stream: AsyncStream) -> None:
    with pytest.raises(CallError, match="total budget"):
        await anext(stream)


async def by_drain(stage: Stage, stream: AsyncStream) -> None:
    await stage.app.aclose()


WAYS = [by_request, by_another, by_leaving, by_deadline, by_drain]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tokens", [0, 1, 5])
async def test_whatever_ends_a_call_ends_its_work(stage: Stage, way: Any, tokens: int) -> None:
    stage.upstream.gate.hold(after=tokens)
    bound = {"timeout_s": 0.5} if way is by_deadline else {}
    with anyio.fail_after(WAIT_S), suppress(CallCancelled, CallError):
        async with stage.client.stream("predict", {"prompt": "fox"}, **bound) as stream:
            for _ in range(tokens):
                await anext(stream)
            await until(lambda: stage.working() == 1)
            await way(stage, stream)
    await until(lambda: stage.working() == 0)
    if way is not by_drain:
        await the_next_call_is_clean(stage)


async def the_next_call_is_clean(stage: Stage) -> None:
    """Its place is free, its answer its own."""
    stage.upstream.gate.open()
    with anyio.fail_after(WAIT_S):
        answer = await stage.client.run("predict", {"prompt": "owl", "max_tokens": 2})
    assert answer["text"] == "owl#0 owl#1 "


async def test_a_call_that_waits_for_its_place_never_reaches_the_upstream(stage: Stage) -> None:
    async with stage.client.stream("predict", {"prompt": "first"}):
        await until(lambda: stage.working() == 1)
        async with stage.client.stream("predict", {"prompt": "second"}):
            pass
        assert len(stage.upstream.seen) == 1
    await until(lambda: stage.working() == 0)
