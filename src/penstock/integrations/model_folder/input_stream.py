"""A stream of input for a method that blocks: it comes on the event loop and is iterated in a thread."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping
from contextlib import aclosing
from contextvars import copy_context
from typing import Any

from penstock.calls.tasks import TaskOwner
from penstock.runtime.interrupt import CallInterrupted
from penstock.runtime.threads import DaemonThreads, ThreadedItems, tell

_END, _CUT = object(), object()


class BlockingInput:
    """An iterator that waits, in whichever thread asks it, for items which the event loop has.

    An item is taken from the loop's side only when the thread has asked for one, so that a sender who is far
    ahead is still told.

    Args:
        items: The items, on the running loop.
    """

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items = items
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._last: object = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Wait for an item.

        Raises:
            StopIteration: There are no more.
            CallInterrupted: The call was cancelled.
        """
        if self._last is None:
            tell(self._loop, self._wanted.set)
            item = self._given.get()
            if item is not _END and item is not _CUT:
                return item
            self._last = item
        if self._last is _CUT:
            raise CallInterrupted("the call was cancelled while it waited for input")
        raise StopIteration

    async def feed(self) -> None:
        """Hand items over until they end, or this is cancelled."""
        last = _CUT
        try:
            items = aiter(self._items)
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    self._given.put(await anext(items))
                except StopAsyncIteration:
                    last = _END
                    return
        finally:
            self._given.put(last)


class StreamingThreads:
    """Runs methods that iterate over a stream of input and yield."""

    def __init__(self) -> None:
        self._threads = DaemonThreads()

    def close(self) -> None:
        """Let the threads end; a call that does not stop is waited for no longer.  Called on the event loop,
        once no call is wanted any more."""
        self._threads.abandon()
        self._threads.close()

    async def items(
        self, method: Callable[..., Any], arguments: Mapping[str, Any], stream: str
    ) -> AsyncGenerator[Any, None]:
        """Yield what ``method`` yields.

        Args:
            arguments: What it is called with; an async iterator among them, under the name ``stream``, is
                given as a plain one.
        """
        feed, tasks = BlockingInput(arguments[stream]), TaskOwner()
        given = {**arguments, stream: feed}
        tasks.start(feed.feed(), name="input of a method")
        async with aclosing(ThreadedItems(self._threads, copy_context(), lambda: method(**given))) as items:
            try:
                while batch := await items.take():
                    for item in batch:
                        yield item
            finally:
                await tasks.aclose()  # before the thread is waited for: it may wait for input
