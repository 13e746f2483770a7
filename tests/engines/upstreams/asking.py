"""Requests to an engine, and what comes back, for the tests of adapters."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from penstock.engines.base import Engine
from penstock.protocol.events import EngineDelta, EngineEnd, EngineEvent, EngineRequest, Sampling

WAIT_S = 5.0


def prompting(
    prompt: str = "fox",
    *,
    max_tokens: int = 1000,
    request_id: str | None = None,
    sampling: dict[str, Any] | None = None,
    **more: Any,
) -> EngineRequest:
    """A request for a text."""
    return EngineRequest(
        request_id=uuid.uuid4().hex if request_id is None else request_id,
        trace_id="trace",
        model="any",
        prompt=prompt,
        max_tokens=max_tokens,
        sampling=Sampling(**(sampling or {})),
        **more,
    )


def chatting(prompt: str = "fox", **more: Any) -> EngineRequest:
    """A request for a chat."""
    return prompting("", messages=({"role": "user", "content": prompt},), **more)


async def whole(engine: Engine, request: EngineRequest) -> list[EngineEvent]:
    """All events of a generation, within bounds."""
    with anyio.fail_after(WAIT_S * 2):
        return [event async for event in engine.generate(request)]


def said(events: list[EngineEvent]) -> str:
    """The text of the deltas."""
    return "".join(event.chunk for event in events if isinstance(event, EngineDelta))


def end_of(events: list[EngineEvent]) -> EngineEnd:
    """The end event."""
    assert isinstance(events[-1], EngineEnd)
    return events[-1]


async def until(holds: Callable[[], bool]) -> None:
    """Let the event loop turn until something holds."""
    with anyio.fail_after(WAIT_S):
        while not holds():
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def reading(
    engine: Engine, request: EngineRequest, seen: list[EngineEvent] | None = None
) -> AsyncIterator[anyio.CancelScope]:
    """Read a generation in a task of its own, which the scope cancels; at the block's end it has ended."""
    events: list[EngineEvent] = [] if seen is None else seen
    scope = anyio.CancelScope()

    async def read() -> None:
        with scope:
            async for event in engine.generate(request):
                events.append(event)

    with anyio.fail_after(WAIT_S * 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            yield scope
