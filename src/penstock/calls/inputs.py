"""The input stream of a call: items that come while it runs, for commands that take a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from penstock.errors import CallError, ErrorCode

RECENT = 8  # items that are remembered once they are taken
MAX_WAITING = 1024  # items a command may be behind; the sender is then told, as nobody may wait for it


class Inputs(Protocol):
    """Takes what a caller sends while the call runs."""

    def send(self, item: bytes) -> None:
        """Add an item, given as JSON.

        Raises:
            CallError: It is refused; the call goes on.
        """
        ...

    def end(self) -> None:
        """Say that no more items come; further calls do nothing."""
        ...


class InputStream:
    """Items for one command, in order; the command iterates over them, on whichever event loop it runs.

    Args:
        name: The parameter they are for, for messages.
        check: Turns an item's JSON text into its value; raises ``CallError`` for a bad one.
    """

    def __init__(self, name: str, check: Callable[[bytes], Any]) -> None:
        self._name = name
        self._check = check
        self._items: deque[Any] = deque()
        self._preloaded = 0
        self.recent: deque[Any] = deque(maxlen=RECENT)
        """The last items that were taken."""
        self._ended = False
        self.on_taken: Callable[[], None] | None = None
        """Told of each item that was sent and is taken, in the thread of who takes it."""
        self._waiter: asyncio.Future[None] | None = None

    def send(self, item: bytes) -> None:
        """Add an item, given as JSON.

        Raises:
            CallError: ``invalid_argument``, it is not what the command takes; ``failed_precondition``, the
                input has ended; ``resource_exhausted``, the command is too far behind.  The call goes on.
        """
        if self._ended:
            raise CallError(f"the input stream {self._name} has ended", ErrorCode.FAILED_PRECONDITION)
        if len(self._items) - self._preloaded >= MAX_WAITING:
            raise CallError(
                f"{MAX_WAITING} items of {self._name} wait to be taken; send more slowly",
                ErrorCode.RESOURCE_EXHAUSTED,
                retry_after_s=1,
            )
        self._items.append(self._check(item))
        self._wake()

    def preload(self, items: list[Any]) -> None:
        """Add items that came with the request, checked already."""
        self._items += items
        self._preloaded += len(items)

    def end(self) -> None:
        """Say that no more items come; further calls do nothing."""
        self._ended = True
        self._wake()

    def __aiter__(self) -> InputStream:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            # Items may come from another thread at any moment: after the last look there is a waiter.
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            ended = self._ended
            if not self._items:
                if ended:
                    raise StopAsyncIteration
                await waiter
        item = self._items.popleft()
        self.recent.append(item)
        if self._preloaded:
            self._preloaded -= 1
        elif self.on_taken is not None:
            self.on_taken()
        return item

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None:
            return
        if waiter.get_loop() is _running_loop():
            _set(waiter)
        else:
            with suppress(RuntimeError):  # a command whose loop is closed takes no more
                waiter.get_loop().call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
