"""Author code that blocks, in threads: run there, its items taken in batches on the event loop.

A thread cannot be interrupted, so whoever waits here waits until the thread has really stopped: that is
what keeps a permit taken while cancelled code runs on.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, Generic, TypeVar

from penstock.calls.stacks import stack_of_thread

T = TypeVar("T")

IDLE_S = 30.0  # an idle thread waits this long for more work
BATCH = 128  # items a generator may be ahead of the loop


class DaemonThreads:
    """Threads that are reused, and that a hanging command cannot make the process wait for."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0
        self._under_way: set[ThreadedCall[Any]] = set()
        self._closed = False

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread; it handles its own exceptions."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._count += 1
                name = f"penstock-command-{self._count}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                Context().run(thread.start)  # it outlives the call that happens to need it first
        self._work.put(work)

    def close(self) -> None:
        """Let idle threads end, and busy ones as soon as they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._work.put(None)

    def abandon(self) -> None:
        """Stop waiting for threads that do not stop; they end with the process.  Called on the event loop,
        when the app closes: a task that waited on would keep the loop from ending."""
        for call in tuple(self._under_way):
            call.abandon()

    def began(self, call: ThreadedCall[Any]) -> None:
        """Count ``call`` in until it has stopped."""
        self._under_way.add(call)
        call.stopped.add_done_callback(lambda _: self._under_way.discard(call))

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            work()
            del work  # an idle thread must not keep the last call's data alive
            with self._lock:
                if self._closed:
                    return
                self._idle += 1

    def _next(self) -> Callable[[], None] | None:
        while True:
            try:
                return self._work.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    # Somebody may have counted on this thread between the time-out and the lock.
                    if self._idle:
                        self._idle -= 1
                        return None


class ThreadedCall(Generic[T]):
    """A blocking function under way in a thread.

    Args:
        threads: Where it runs.
        context: The context it runs in.
        function: What runs.
    """

    def __init__(self, threads: DaemonThreads, context: Context, function: Callable[[], T]) -> None:
        self._loop = asyncio.get_running_loop()
        self.stopped = self._loop.create_future()
        self._function = function
        self._ident: int | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        threads.submit(lambda: context.run(self._run))
        threads.began(self)

    async def result(self) -> T | None:
        """Wait until the thread has stopped, however often this task is cancelled meanwhile.

        Raises:
            asyncio.CancelledError: This task was cancelled; the thread has stopped nevertheless.
        """
        cancelled: asyncio.CancelledError | None = None
        while not self.stopped.done():
            try:
                await asyncio.wait((self.stopped,))
            except asyncio.CancelledError as interrupt:
                cancelled = interrupt
        if cancelled is not None:
            raise cancelled
        error, self._error = self._error, None  # told once
        if error is not None:
            raise error
        return self._result

    def stack(self) -> str:
        """Where its thread is."""
        return stack_of_thread(self._ident)

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - carried to the task that waits for it
            self._error = error
        tell(self._loop, self._stop)

    def abandon(self) -> None:
        """Let whoever waits go on; the thread still runs."""
        self._error = asyncio.CancelledError("its thread does not stop")
        self._stop()

    def _stop(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)


class ThreadedItems:
    """A blocking generator under way in a thread.

    Args:
        threads: Where it runs.
        context: The context it runs in.
        make: Makes the generator.
    """

    def __init__(self, threads: DaemonThreads, context: Context, make: Callable[[], Any]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._space = threading.Condition(self._lock)
        self._buffer: list[Any] = []
        self._told = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._thread = ThreadedCall(threads, context, self._run)

    async def take(self) -> list[Any]:
        """Return the items that are there, once there are any; an empty list at the end.

        Raises:
            BaseException: What the generator raised, after its items.
        """
        while True:
            with self._lock:
                batch, self._buffer = self._buffer, []
                self._told = False
                self._space.notify()
            if batch:
                return batch
            if self._thread.stopped.done():
                await self._thread.result()
                return []
            await self._wait()

    def stack(self) -> str:
        """Where its thread is."""
        return self._thread.stack()

    async def aclose(self) -> None:
        """Close the generator at its next yield, and wait until its thread has stopped.

        Raises:
            BaseException: What the generator raised, unless ``take`` did so already.
        """
        with self._lock:
            self._closed = True
            self._space.notify()
        await self._thread.result()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        self._thread.stopped.add_done_callback(self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._thread.stopped.remove_done_callback(self._wake)

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _run(self) -> None:
        items = self._make()
        try:
            for item in items:
                if not self._put(item):
                    break
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _put(self, item: Any) -> bool:
        with self._lock:
            self._buffer.append(item)
            must_tell, self._told = not self._told, True
        if must_tell:
            tell(self._loop, self._wake)
        with self._lock:
            while len(self._buffer) >= BATCH and not self._closed:
                self._space.wait()
            return not self._closed


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call back on ``loop`` from a thread; a loop that is gone has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
