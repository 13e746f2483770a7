"""The input stream of a call: items that come while it runs, for commands that take a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.errors import CallError, ErrorCode

MAX_WAITING = 1024  # items a command may be behind; the sender is then told, as nobody may wait for it


class InputStream:
    """Items for one command, in order; the command iterates over them.

    Args:
        name: The parameter they are for, for messages.
        check: Turns an item's JSON text into its value; raises ``CallError`` for a bad one.
    """

    def __init__(self, name: str, check: Callable[[bytes], Any]) -> None:
        self._name = name
        self._check = check
        self._items: deque[Any] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def send(self, item: bytes) -> None:
        """Add an item, given as JSON.

        Raises:
            CallError: ``invalid_argument``, it is not what the command takes; ``failed_precondition``, the
                input has ended; ``resource_exhausted``, the command is too far behind.  The call goes on.
        """
        if self._ended:
            raise CallError(f"the input stream {self._name} has ended", ErrorCode.FAILED_PRECONDITION)
        if len(self._items) >= MAX_WAITING:
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

    def end(self) -> None:
        """Say that no more items come; further calls do nothing."""
        self._ended = True
        self._wake()

    def __aiter__(self) -> InputStream:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
