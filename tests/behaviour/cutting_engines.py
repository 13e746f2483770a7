"""The projects of the cancel matrix whose work is done below: by servers that are played, or a real model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any

import pytest

from behaviour.checks import until
from behaviour.cutting import HALF, ITEMS, Point, Project
from behaviour.way import Handle
from engines.upstreams.anthropic import AnthropicServer
from engines.upstreams.asking import chatting, prompting, whole
from engines.upstreams.openai import OpenAIServer
from engines.upstreams.server import Seen, Upstream
from engines.upstreams.sglang import SGLangServer
from penstock import Runtime
from penstock.engines.base import Engine, raise_if_failed
from penstock.engines.llamacpp import LlamaEngine
from penstock.engines.llamacpp_server import LlamaSettings
from penstock.engines.sglang import open_sglang
from penstock.engines.store import ModelStore
from penstock.protocol.events import EngineDelta, EngineEnd
from penstock.runtime.context import current_call

ENGINES = ("sglang", "openai", "anthropic", "llamacpp")


class OnEngine(Project):
    """A project whose command passes on what an engine says.

    Args:
        engine: Which.
    """

    confirms = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        super().__init__()

    def serve(self, rt: Runtime) -> None:
        @rt.streaming_command("predict", concurrency=1)
        async def predict(point: str, prompt: str):
            self.register()
            async with aclosing(self.pieces(prompt)) as pieces:
                async for piece in pieces:
                    yield {"chunk": piece}
            if point == "last":  # the engine has said its last, and the command has not
                self.journal.record("last")
                await asyncio.Event().wait()

    def pieces(self, prompt: str, tokens: int = ITEMS) -> AsyncIterator[str]:
        """Return what the engine says."""
        return self.engine.stream_text(prompt, max_tokens=tokens)


class Played(OnEngine):
    """... a server that is played, whose gate holds the work at a point.

    Args:
        engine: Speaks to it.
        upstream: The server.
    """

    def __init__(self, engine: Engine, upstream: Any) -> None:
        self.upstream = upstream
        super().__init__(engine)

    def prepare(self, point: Point) -> None:
        held = {"before": 0, "mid": HALF}
        if point in held:
            self.upstream.gate.hold(held[point])
        else:
            self.upstream.gate.open()

    async def arrived(self, point: Point, call: Handle) -> None:
        if point == "last":
            await super().arrived(point, call)
            return
        await until(lambda: self.upstream.gate.waiting == 1, lambda: self.upstream.gate.waiting)
        if point == "mid":
            frame = await call.until("streaming")
            assert frame["data"]["chunk"].startswith("prompt-")

    async def check(self, prompt: str, request_id: str, point: Point) -> None:
        await until(lambda: not self.working, lambda: self.working)
        asked = [seen for seen in self.upstream.seen if prompt.encode() + b'"' in seen.body]
        assert len(asked) == (0 if point == "queued" else 1)
        for seen in asked:
            await self.check_asked(seen, request_id, cut=point in ("before", "mid"))
        # The next call is clean, on a connection that no cancelled one has used.
        self.upstream.gate.open()
        text = "".join([piece async for piece in self.pieces("next")])
        assert text == "".join(f"next#{number} " for number in range(ITEMS))

    @property
    def working(self) -> int:
        """How many answers the server is at work on."""
        raise NotImplementedError

    async def check_asked(self, seen: Seen, request_id: str, *, cut: bool) -> None:
        """Check what became of the request, which was ``cut`` while the server worked on it, or not."""
        if cut:
            await until(seen.connection.lost.is_set, lambda: "open")
        others = [other for other in self.upstream.seen if other.connection is seen.connection]
        assert not cut or others[-1] is seen


class OnSGLang(Played):
    """... SGLang's native route; the server does not answer an abort before it is let go."""

    lingers = ("before", "mid")
    upstream: SGLangServer

    def prepare(self, point: Point) -> None:
        super().prepare(point)
        self.upstream.abort_gate.clear()

    def let_go(self) -> None:
        self.upstream.abort_gate.set()

    async def pieces(self, prompt: str, tokens: int = ITEMS) -> AsyncIterator[str]:
        asked = partial(prompting, prompt, max_tokens=tokens)
        request = asked() if prompt == "next" else asked(request_id=current_call().request_id)
        async with aclosing(self.engine.generate(request)) as events:
            async for event in events:
                if isinstance(event, EngineDelta) and event.chunk:
                    yield event.chunk
                elif isinstance(event, EngineEnd):
                    raise_if_failed(event)

    @property
    def working(self) -> int:
        return len(self.upstream.live)

    async def check_asked(self, seen: Seen, request_id: str, *, cut: bool) -> None:
        await super().check_asked(seen, request_id, cut=cut)
        assert seen.json["rid"] == request_id
        assert self.upstream.aborts.count(request_id) == cut
        assert self.upstream.useless == []


class OnHttp(Played):
    """... one that is told by closing its connection."""

    upstream: OpenAIServer | AnthropicServer

    @property
    def working(self) -> int:
        return self.upstream.working


class HeldLlama(LlamaEngine):
    """The real model, which can be held between two of its tokens.

    Attributes:
        after: Tokens of each generation that pass before it is held; None: all do.
        held: How many are.
        go: Lets them go on.
        said: How often each that was held spoke from then on.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.after: int | None = None
        self.held = 0
        self.go = threading.Event()
        self.said: list[int] = []

    def complete(self, body: dict[str, Any], on_chunk: Any) -> None:
        tokens, behind = 0, 0

        def held(chunk: Any) -> bool:
            nonlocal tokens, behind
            if tokens == self.after and not behind:
                self.held += 1
                assert self.go.wait(10)
                self.held -= 1
                behind = 1
            elif behind:
                behind += 1
            # Before the first token it tells how far it has read the prompt.
            tokens += bool(chunk["choices"][0]["delta"].get("content"))
            return on_chunk(chunk)

        super().complete(body, held)
        if behind:
            self.said.append(behind)


class OnLlama(OnEngine):
    """... a real model of llama.cpp."""

    lingers = ("before", "mid")
    engine: HeldLlama

    def prepare(self, point: Point) -> None:
        self.engine.go.clear()
        self.engine.said.clear()
        self.engine.after = {"before": 0, "mid": HALF}.get(point)

    def let_go(self) -> None:
        self.engine.go.set()

    async def arrived(self, point: Point, call: Handle) -> None:
        if point == "last":
            await super().arrived(point, call)
            return
        await until(lambda: self.engine.held == 1, lambda: self.engine.held)
        if point == "mid":
            await call.until("streaming")

    async def check(self, prompt: str, request_id: str, point: Point) -> None:
        assert not self.engine._live
        # It stopped at the token it was held at: also that of the call which held the permit.
        assert self.engine.said == ([1] if point in ("queued", "before", "mid") else [])
        self.engine.after = None
        assert [piece async for piece in self.pieces("next")]


class Below:
    """The engines and what is below them.

    Args:
        stack: Closes them.
    """

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._there: dict[str, tuple[Any, ...]] = {}

    async def project(self, name: str) -> Project:
        """Return a new project on the engine of this name."""
        if name not in self._there:
            self._there[name] = await getattr(self, f"_{name}")()
        kind, *parts = self._there[name]
        return kind(*parts)

    async def _sglang(self) -> tuple[Any, ...]:
        server = await self._running(SGLangServer())
        return OnSGLang, await self._warm(open_sglang(server.url)), server

    async def _openai(self) -> tuple[Any, ...]:
        pytest.importorskip("openai", reason="needs the extra openai")
        from penstock.engines.openai import open_openai

        server = await self._running(OpenAIServer())
        return OnHttp, await self._warm(open_openai(server.url, model="played")), server

    async def _anthropic(self) -> tuple[Any, ...]:
        pytest.importorskip("anthropic", reason="needs the extra anthropic")
        from penstock.engines.anthropic import open_anthropic

        server = await self._running(AnthropicServer())
        engine = open_anthropic("claude-test", base_url=server.url, api_key=server.key)
        return OnHttp, await self._warm(engine), server

    async def _llamacpp(self) -> tuple[Any, ...]:
        model = ModelStore().pull("smollm2-135m")
        settings = LlamaSettings(slots=1, context_tokens=512)
        return OnLlama, await self._warm(HeldLlama(model, "smollm2-135m", settings))

    async def _running(self, server: Upstream) -> Any:
        return await self._stack.enter_async_context(server.running())

    async def _warm(self, engine: Engine) -> Engine:
        """Have whatever it makes once made before the first test looks around."""
        await self._stack.enter_async_context(engine)
        await whole(engine, chatting("warm", max_tokens=1))
        return engine
