"""The calls behind one answer: one for each of its choices, read together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from penstock.calls.tasks import TaskOwner
from penstock.errors import CallError
from penstock.protocol.dispatch import Batch, FrameReader, LiveCall
from penstock.protocol.openai_api.errors import error_of
from penstock.server.exchange import Exchange

_FIRST_ITEM = 2  # frames: the first says only that the call was accepted


class Chosen(NamedTuple):
    """A batch of chunks of the choice of that number."""

    number: int
    batch: Batch


@asynccontextmanager
async def reading(exchange: Exchange, calls: Sequence[LiveCall]) -> AsyncIterator[list[FrameReader]]:
    """Read calls until their client leaves."""
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(call.reader()) for call in calls]

        def gone() -> None:
            for reader in readers:
                reader.close()

        exchange.outlet.on_gone(gone)
        try:
            yield readers
        finally:
            exchange.outlet.forget_gone()


async def together(readers: Sequence[FrameReader], tasks: TaskOwner) -> AsyncGenerator[Chosen, None]:
    """Yield the batches of all readers as they come.

    Raises:
        CallError: Frames are no longer kept.
    """
    if len(readers) == 1:
        async for batch in readers[0]:
            yield Chosen(0, batch)
        return
    waiting = {_next(reader, tasks): index for index, reader in enumerate(readers)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = waiting.pop(task)
                if (taken := task.result()) is not None:
                    yield Chosen(index, taken)
                    waiting[_next(readers[index], tasks)] = index
    finally:
        for task in waiting:
            task.cancel()


def _next(reader: FrameReader, tasks: TaskOwner) -> asyncio.Task[Batch | None]:
    async def take() -> Batch | None:
        try:
            return await reader.__anext__()
        except StopAsyncIteration:
            return None

    return tasks.start(take(), name="choice", awaited=True)


async def begun(batches: AsyncIterator[Chosen]) -> list[Chosen]:
    """Return the first batches, up to the first item or the end of a choice: until then an answer may
    still be a status.

    Raises:
        CallError: A choice failed before its first item.
    """
    first: list[Chosen] = []
    frames: dict[int, int] = {}
    async for chosen in batches:
        first.append(chosen)
        index, batch = chosen
        frames[index] = frames.get(index, 0) + len(batch.lines)
        if batch.ending is not None and frames[index] <= _FIRST_ITEM and (error := error_of(batch.ending)):
            raise error
        if frames[index] >= _FIRST_ITEM:
            break
    return first


def fault_of(batch: Batch) -> CallError | None:
    """Return why a choice did not complete, if it has ended."""
    return None if batch.ending is None else error_of(batch.ending)


async def chained(first: Sequence[Chosen], rest: AsyncIterator[Chosen]) -> AsyncIterator[Chosen]:
    """Yield what was taken already, then the rest."""
    for chosen in first:
        yield chosen
    async for chosen in rest:
        yield chosen
