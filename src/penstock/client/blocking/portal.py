"""An event loop on a thread of its own, that other threads have things done on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from penstock.calls.tasks import TaskOwner
from penstock.errors import LocalProtocolError

CLOSE_S = 5.0  # how long what is under way may take to end
# Windows sees Ctrl-C only between two waits.
_LOOK_S = 0.2 if sys.platform == "win32" else None

T = TypeVar("T")


class Portal:
    """Runs a loop until it is closed.  A program that forgets to close it ends all the same."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks = TaskOwner()
        self._waited: set[concurrent.futures.Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="penstock-client", daemon=True)
        self._thread.start()

    def call(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Do ``work`` on the loop and return what it gives.

        What is raised in the thread that waits, such as by Ctrl-C, cancels it, and waits for its end.

        Raises:
            LocalProtocolError: The portal was closed, or the thread that would wait is its own.
        """
        if threading.current_thread() is self._thread:
            raise LocalProtocolError("a Client cannot be used on its own thread; use AsyncClient there")
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(self._tasks.start(_do(work, args), awaited=True))
            begun[0].add_done_callback(lambda task: _hand_over(task, future))

        self._waited.add(future)
        try:
            self._tell(begin)
            while not future.done():
                concurrent.futures.wait((future,), _LOOK_S)
        except BaseException:
            with suppress(LocalProtocolError):
                self._tell(lambda: begun[0].cancel())
                concurrent.futures.wait((future,), CLOSE_S)
            raise
        finally:
            self._waited.discard(future)
        return future.result()

    def start(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Have ``work`` done and do not wait for it; for any thread, also while it collects garbage."""
        with suppress(LocalProtocolError):  # every connection is closed, too
            self._tell(lambda: self._tasks.start(work()))

    def close(self, last: Callable[[], Awaitable[object]]) -> None:
        """Do ``last``, and stop the loop; what it does beside that is cancelled."""

        async def end() -> None:
            try:
                await asyncio.wait_for(last(), CLOSE_S)
            finally:
                self._loop.stop()

        self.start(end)
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * CLOSE_S)

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError as error:
            raise _closed() from error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._tasks.aclose(CLOSE_S))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            for future in tuple(self._waited):  # told too late to begin
                if not future.done():
                    future.set_exception(_closed())


async def _do(work: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> T:
    return await work(*args)


def _hand_over(task: asyncio.Task[T], future: concurrent.futures.Future[T]) -> None:
    if task.cancelled():
        future.set_exception(_closed())
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def _closed() -> LocalProtocolError:
    return LocalProtocolError("the client was closed")
